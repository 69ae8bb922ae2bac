package nft_test
import ("testing";"fmt";"portcullis/portmap";"net/netip";"time")
func TestScratch(t *testing.T){
 n:=newNamespace(t,"gw")
 b:=open(t,n)
 for _,N:=range []int{1000,5000,20000}{
 var ms []portmap.Mapping
 for i:=1;i<=N;i++{
 ms=append(ms,portmap.Mapping{ID:uint64(i),Transport:portmap.UDP,External:netip.AddrPortFrom(netip.Addr{},uint16(i)),Internal:netip.AddrPortFrom(netip.AddrFrom4([4]byte{10,1,byte(i>>8),byte(i)}),6000),Expires:time.Now().Add(time.Hour)})
 }
 tm:=func(s string,f func() error){start:=time.Now();err:=f();fmt.Println(N,s,time.Since(start),err)}
 tm("apply",func()error{return b.Apply(ctx(t),ms,nil)})
 tm("entries",func()error{_,err:=b.Entries(ctx(t));return err})
 tm("counters",func()error{_,err:=b.Counters(ctx(t));return err})
 m2:=append([]portmap.Mapping{},ms...); for i:=range m2{m2[i].Expires=m2[i].Expires.Add(time.Hour)}
 tm("renew",func()error{return b.Apply(ctx(t),m2,ms)})
 tm("audit",func()error{_,err:=b.Audit(ctx(t),false);return err})
 tm("renew1",func()error{return b.Apply(ctx(t),ms[:1],m2[:1])})
 tm("replace",func()error{return b.Replace(ctx(t),ms)})
 tm("delete",func()error{return b.Apply(ctx(t),nil,ms)})
 }
}
