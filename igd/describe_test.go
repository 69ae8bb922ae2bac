package igd_test

import (
	"encoding/xml"
	"flag"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/huin/goupnp"
	"github.com/huin/goupnp/scpd"

	"portcullis/igd"
)

var update = flag.Bool("update", false, "write the golden files anew")

func (l *lan) get(path string) string {
	l.t.Helper()
	resp := l.do(hostA, "GET", path, "")
	if resp.StatusCode != 200 {
		l.t.Fatalf("GET %s: %s", path, resp.Status)
	}
	if ct := resp.Header.Get("Content-Type"); ct != `text/xml; charset="utf-8"` {
		l.t.Errorf("GET %s: Content-Type %q", path, ct)
	}
	body, _ := io.ReadAll(resp.Body)
	return string(body)
}

func (l *lan) rootDocument(version int) *goupnp.RootDevice {
	l.t.Helper()
	loc, err := url.Parse(l.front.Location(version))
	if err != nil {
		l.t.Fatal(err)
	}
	var root goupnp.RootDevice
	if err := xml.Unmarshal([]byte(l.get(loc.Path)), &root); err != nil {
		l.t.Fatal(err)
	}
	root.SetURLBase(loc)
	return &root
}

// walk calls visit for each service of a version's description.
func (l *lan) walk(version int, visit func(goupnp.Service, *scpd.SCPD)) {
	l.t.Helper()
	l.rootDocument(version).Device.VisitServices(func(s *goupnp.Service) {
		var doc scpd.SCPD
		if err := xml.Unmarshal([]byte(l.get(s.SCPDURL.URL.Path)), &doc); err != nil {
			l.t.Fatalf("%s: %v", s.ServiceType, err)
		}
		visit(*s, &doc)
	})
}

func TestGoldenDocuments(t *testing.T) {
	t.Parallel()
	l := start(t)
	for _, version := range []int{1, 2} {
		docs := map[string]string{}
		loc, _ := url.Parse(l.front.Location(version))
		docs["root.xml"] = l.get(loc.Path)
		l.walk(version, func(s goupnp.Service, _ *scpd.SCPD) {
			name := strings.Split(s.ServiceType, ":")[3]
			docs[name+".xml"] = l.get(s.SCPDURL.URL.Path)
		})
		for name, got := range docs {
			file := filepath.Join("testdata", "v"+strconv.Itoa(version), name)
			if *update {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		}
	}
}

func TestRootDocument(t *testing.T) {
	t.Parallel()
	l := start(t)
	uuids := map[string]string{}
	for _, target := range l.device.Targets() {
		uuids[target.Type] = "uuid:" + target.UUID
	}
	for version, want := range map[int][]string{
		1: {
			"device:InternetGatewayDevice:1", "service:Layer3Forwarding:1 L3Forwarding1",
			"device:WANDevice:1", "service:WANCommonInterfaceConfig:1 WANCommonIFC1",
			"device:WANConnectionDevice:1", "service:WANIPConnection:1 WANIPConn1", "service:WANPPPConnection:1 WANPPPConn1",
		},
		2: {
			"device:InternetGatewayDevice:2", "service:Layer3Forwarding:1 L3Forwarding1",
			"device:WANDevice:2", "service:WANCommonInterfaceConfig:1 WANCommonIFC1",
			"device:WANConnectionDevice:2", "service:WANIPConnection:2 WANIPConn1", "service:WANPPPConnection:1 WANPPPConn1",
			"service:WANIPv6FirewallControl:1 WANIPv6Firewall1",
		},
	} {
		t.Run("DESC-1/version "+strconv.Itoa(version), func(t *testing.T) {
			root := l.rootDocument(version)
			if got := root.XMLName; got != (xml.Name{Space: goupnp.DeviceXMLNamespace, Local: "root"}) {
				t.Errorf("root element %v", got)
			}
			if root.SpecVersion != (goupnp.SpecVersion{Major: 1, Minor: int32(version - 1)}) {
				t.Errorf("specVersion %v", root.SpecVersion)
			}
			var got []string
			urls := map[string]bool{}
			root.Device.VisitDevices(func(d *goupnp.Device) {
				short := strings.TrimPrefix(d.DeviceType, "urn:schemas-upnp-org:")
				got = append(got, short)
				if family := d.DeviceType[:len(d.DeviceType)-2]; d.UDN != uuids[family] || d.UDN == "" {
					t.Errorf("%s: UDN %q, discovery says %q", short, d.UDN, uuids[family])
				}
				if d.FriendlyName == "" || d.Manufacturer == "" || d.ModelName == "" || len(d.ModelName) >= 32 {
					t.Errorf("%s: a required text is missing or too long", short)
				}
				for _, s := range d.Services {
					got = append(got, strings.TrimPrefix(s.ServiceType, "urn:schemas-upnp-org:")+" "+
						strings.TrimPrefix(s.ServiceId, "urn:upnp-org:serviceId:"))
					for _, u := range []goupnp.URLField{s.SCPDURL, s.ControlURL, s.EventSubURL} {
						if u.Str != "" && urls[u.Str] || !strings.HasPrefix(u.Str, "/") && u.Str != "" {
							t.Errorf("%s: URL %q is used twice or not absolute", s.ServiceType, u.Str)
						}
						urls[u.Str] = true
					}
				}
			})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("device tree (-want +got):\n%s", diff)
			}
		})
	}
}

// eventedWant are the evented variables of the service documents.
var eventedWant = map[string][]string{
	ip1:     {"ConnectionStatus", "ExternalIPAddress", "PortMappingNumberOfEntries", "PossibleConnectionTypes"},
	ip2:     {"ConnectionStatus", "ExternalIPAddress", "PortMappingNumberOfEntries", "PossibleConnectionTypes", "SystemUpdateID"},
	ppp1:    {"ConnectionStatus", "ExternalIPAddress", "PortMappingNumberOfEntries", "PossibleConnectionTypes"},
	common1: {"PhysicalLinkStatus"},
	layer31: {"DefaultConnectionService"},
	six1:    {"FirewallEnabled", "InboundPinholeAllowed"},
}

func TestServiceDocuments(t *testing.T) {
	t.Parallel()
	l := start(t)
	for _, version := range []int{1, 2} {
		l.walk(version, func(s goupnp.Service, doc *scpd.SCPD) {
			service := strings.TrimPrefix(s.ServiceType, typePrefix)
			t.Run("DESC-2/version "+strconv.Itoa(version)+" "+service, func(t *testing.T) {
				checkServiceDocument(t, doc)
				var evented []string
				for _, v := range doc.StateVariables {
					if v.SendEvents == "yes" {
						evented = append(evented, v.Name)
					}
				}
				slices.Sort(evented)
				if diff := cmp.Diff(eventedWant[service], evented); diff != "" {
					t.Errorf("evented (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func checkServiceDocument(t *testing.T, doc *scpd.SCPD) {
	t.Helper()
	if doc.XMLName != (xml.Name{Space: scpd.SCPDXMLNamespace, Local: "scpd"}) {
		t.Errorf("root element %v", doc.XMLName)
	}
	used, names := map[string]bool{}, map[string]bool{}
	for _, a := range doc.Actions {
		if names["a "+a.Name] {
			t.Errorf("action %s twice", a.Name)
		}
		names["a "+a.Name] = true
		out := false
		for _, arg := range a.Arguments {
			if arg.IsInput() && out {
				t.Errorf("%s: %s stands after an out argument", a.Name, arg.Name)
			}
			out = out || arg.IsOutput()
			if !arg.IsInput() && !arg.IsOutput() {
				t.Errorf("%s: %s has direction %q", a.Name, arg.Name, arg.Direction)
			}
			if doc.GetStateVariable(arg.RelatedStateVariable) == nil {
				t.Errorf("%s: %s relates to %q, which does not exist", a.Name, arg.Name, arg.RelatedStateVariable)
			}
			used[arg.RelatedStateVariable] = true
		}
	}
	for _, v := range doc.StateVariables {
		if names["v "+v.Name] {
			t.Errorf("variable %s twice", v.Name)
		}
		names["v "+v.Name] = true
		if v.SendEvents == "no" && !used[v.Name] {
			t.Errorf("variable %s is neither evented nor used", v.Name)
		}
		if len(v.AllowedValues) > 0 && v.DataType.Name != "string" || v.AllowedValueRange != nil && v.DataType.Name == "string" {
			t.Errorf("variable %s: what is allowed does not fit its type", v.Name)
		}
	}
}

// TestActionsAsAnnounced calls every action that is announced, with values made
// from its description: none is unknown, and what succeeds gives every out
// argument, in order and of its type.
func TestActionsAsAnnounced(t *testing.T) {
	t.Parallel()
	l := start(t)
	wantCode(t, l.call(hostA, ip1, "AddPortMapping", mapping(hostA, "NewExternalPort", "1")...), 606)
	for _, version := range []int{1, 2} {
		l.walk(version, func(s goupnp.Service, doc *scpd.SCPD) {
			service := strings.TrimPrefix(s.ServiceType, typePrefix)
			for _, a := range doc.Actions {
				from := hostA
				wantCode(t, l.call(hostA, ip1, "AddPortMapping", mapping(hostA)...), 0) // another action may have deleted it
				number := ""
				if service == six1 {
					from = sixA
					number = l.open(t, sixA)
					l.wan.pass(l.numbered(t, number).ID, 1)
				}
				var args, out []string
				for _, arg := range a.InputArguments() {
					args = append(args, arg.Name, sample(l, arg, version, number))
				}
				for _, arg := range a.OutputArguments() {
					out = append(out, arg.Name)
				}
				r := parseReply(t, l.do(from, "POST", s.ControlURL.URL.Path,
					envelope(s.ServiceType, a.Name, argsXML(args...)),
					"SOAPACTION", `"`+s.ServiceType+"#"+a.Name+`"`, "CONTENT-TYPE", "text/xml"))
				refused := slices.Contains([]string{"SetConnectionType", "ForceTermination"}, a.Name)
				if refused != (r.Status != 200) || r.Code == 401 {
					t.Errorf("%s %s: HTTP %d, code %d", service, a.Name, r.Status, r.Code)
				}
				if refused {
					continue
				}
				if want := "{" + s.ServiceType + "}" + a.Name + "Response"; r.Name != want {
					t.Errorf("%s: response element %s", a.Name, r.Name)
				}
				if diff := cmp.Diff(out, r.Names); diff != "" {
					t.Errorf("%s %s: out arguments (-want +got):\n%s", service, a.Name, diff)
				}
				for _, arg := range a.OutputArguments() {
					checkValue(t, service+" "+a.Name, doc.GetStateVariable(arg.RelatedStateVariable), r.Out[arg.Name])
				}
			}
		})
	}
}

// sample returns a value that makes the action succeed after a mapping of UDP 6000.
// number is that of a pinhole.
func sample(l *lan, arg *scpd.Argument, version int, number string) string {
	switch arg.Name {
	case "UniqueID":
		return number
	case "InternalClient":
		return sixA.client.Addr.String()
	case "Protocol":
		return "17"
	case "RemoteHost":
		return ""
	case "NewProtocol":
		return "UDP"
	case "NewInternalClient":
		return hostA.client.Addr.String()
	case "NewEnabled", "NewManage":
		return "1"
	case "NewConnectionType":
		return "IP_Routed"
	case "NewRemoteHost", "NewPortMappingDescription":
		return ""
	case "NewPortMappingIndex", "NewLeaseDuration", "NewNumberOfPorts":
		return "0"
	case "NewDefaultConnectionService":
		return l.defaultConnection(version)
	}
	return "6000"
}

func checkValue(t *testing.T, what string, v *scpd.StateVariable, got string) {
	t.Helper()
	var err error
	switch v.DataType.Name {
	case "ui2":
		_, err = strconv.ParseUint(got, 10, 16)
	case "ui4":
		_, err = strconv.ParseUint(got, 10, 32)
	case "boolean":
		if got != "0" && got != "1" {
			err = strconv.ErrSyntax
		}
	}
	if err != nil {
		t.Errorf("%s: %s is %q, not a %s", what, v.Name, got, v.DataType.Name)
	}
	if len(v.AllowedValues) > 0 && !slices.Contains(v.AllowedValues, got) {
		t.Errorf("%s: %s is %q, not one of %q", what, v.Name, got, v.AllowedValues)
	}
}

func TestDescriptionTellsNothing(t *testing.T) {
	t.Parallel()
	l := start(t)
	for _, version := range []int{1, 2} {
		loc, _ := url.Parse(l.front.Location(version))
		doc := l.get(loc.Path)
		for _, tag := range []string{"serialNumber", "modelNumber", "presentationURL", "manufacturerURL", "modelURL", "URLBase", "UPC"} {
			if strings.Contains(doc, tag) {
				t.Errorf("K6/version %d has %s", version, tag)
			}
		}
	}
}

func TestLocation(t *testing.T) {
	t.Parallel()
	d := newDevice(t, config(newEngine(t), goodWAN()))
	f := d.On("lan", netip.MustParseAddrPort("192.168.1.1:5000"))
	one, two := "http://192.168.1.1:5000/"+testPath+"/1/root.xml", "http://192.168.1.1:5000/"+testPath+"/2/root.xml"
	for version, want := range map[int]string{0: one, 1: one, 2: two, 3: two} {
		if got := f.Location(version); got != want {
			t.Errorf("Location(%d) = %s, want %s", version, got, want)
		}
	}
	for at, want := range map[string]string{
		"[2001:db8::1]:5000":    "http://[2001:db8::1]:5000/" + testPath + "/2/root.xml",
		"[fe80::1%br-lan]:5000": "http://[fe80::1]:5000/" + testPath + "/2/root.xml", // UDA 1.1 annex A: no zone
	} {
		if got := d.On("lan", netip.MustParseAddrPort(at)).Location(2); got != want {
			t.Errorf("Location at %s = %s, want %s", at, got, want)
		}
	}
	other := d.On("guest", netip.MustParseAddrPort("192.168.50.1:5000"))
	if got := other.Location(1); !strings.HasPrefix(got, "http://192.168.50.1:5000/") {
		t.Errorf("E8: %s", got)
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	got := newDevice(t, config(newEngine(t), goodWAN())).Targets()
	const dev, srv = "urn:schemas-upnp-org:device:", "urn:schemas-upnp-org:service:"
	r, w, c := got[0].UUID, got[4].UUID, got[7].UUID
	want := []igd.Target{
		{Type: "upnp:rootdevice", UUID: r, Tree: 1},
		{UUID: r, Tree: 1},
		{Type: dev + "InternetGatewayDevice", MaxVersion: 2, UUID: r, Tree: 1},
		{Type: srv + "Layer3Forwarding", MaxVersion: 1, UUID: r, Tree: 1},
		{UUID: w, Tree: 1},
		{Type: dev + "WANDevice", MaxVersion: 2, UUID: w, Tree: 1},
		{Type: srv + "WANCommonInterfaceConfig", MaxVersion: 1, UUID: w, Tree: 1},
		{UUID: c, Tree: 1},
		{Type: dev + "WANConnectionDevice", MaxVersion: 2, UUID: c, Tree: 1},
		{Type: srv + "WANIPConnection", MaxVersion: 2, UUID: c, Tree: 1},
		{Type: srv + "WANPPPConnection", MaxVersion: 1, UUID: c, Tree: 1},
		{Type: srv + "WANIPv6FirewallControl", MaxVersion: 1, UUID: c, Tree: 2},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
	if r != baseUUID || r == w || w == c || r == c {
		t.Errorf("UUIDs %s, %s, %s", r, w, c)
	}
}

func TestConfigID(t *testing.T) {
	t.Parallel()
	m := newEngine(t)
	id := func(change func(*igd.Config)) uint32 {
		cfg := config(m, goodWAN())
		change(&cfg)
		return newDevice(t, cfg).ConfigID()
	}
	base := id(func(*igd.Config) {})
	if base > 1<<24-1 {
		t.Errorf("ConfigID %d is not in the device's range", base)
	}
	if again := id(func(*igd.Config) {}); again != base {
		t.Errorf("ConfigID %d, then %d", base, again)
	}
	for name, other := range map[string]uint32{
		"name":  id(func(c *igd.Config) { c.FriendlyName = "Other" }),
		"model": id(func(c *igd.Config) { c.Product.ModelNumber = "2" }),
		"uuid":  id(func(c *igd.Config) { c.UUID = "6ba7b811-9dad-11d1-80b4-00c04fd430c8" }),
		"path":  id(func(c *igd.Config) { c.Path = "00112233445566778899aabc" }),
	} {
		if other == base {
			t.Errorf("another %s leaves the ConfigID", name)
		}
	}
	l := start(t)
	loc, _ := url.Parse(l.front.Location(2))
	want := `configId="` + strconv.FormatUint(uint64(l.device.ConfigID()), 10) + `"`
	if doc := l.get(loc.Path); !strings.Contains(doc, want) {
		t.Errorf("the document does not carry %s", want)
	}
}

// TestPath: D5. What could be guessed is refused, and what is no path segment.
func TestPath(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"", "upnp", "00112233445566", "0011223344556677/", "../../../../../../", "001122334455667é"} {
		cfg := config(newEngine(t), goodWAN())
		cfg.Path = path
		if _, err := igd.New(cfg); err == nil || !strings.Contains(err.Error(), "path") {
			t.Errorf("path %q: %v", path, err)
		}
	}
}

func TestFriendlyName(t *testing.T) {
	t.Parallel()
	cfg := config(newEngine(t), goodWAN())
	cfg.FriendlyName = `<b>&"configId"` + strings.Repeat("ä", 100)
	l := &lan{t: t, wan: goodWAN()}
	l.serve(cfg)
	want := `<b>&"configId"` + strings.Repeat("ä", 63-14)
	if got := l.rootDocument(1).Device.FriendlyName; got != want {
		t.Errorf("friendlyName %q, want %q", got, want)
	}
}

// TestProduct: what the owner says of the gateway is in the description of each version as he
// wrote it, bounded, in the order of UDA 1.1 section 2.3; what he leaves out is not there, or
// is ours; a web page is told of the root alone.
func TestProduct(t *testing.T) {
	t.Parallel()
	cfg := config(newEngine(t), goodWAN())
	hostile := "]]></manufacturer><script>&\"'" + strings.Repeat("ä", 100)
	cfg.Product = igd.Product{
		Manufacturer: hostile, ManufacturerURL: "https://example.com/?a=1&b=<2>", ModelName: "M & N", ModelNumber: "7",
		ModelDescription: strings.Repeat("d", 200), ModelURL: "http://example.com/" + strings.Repeat("u", 300), SerialNumber: "0<0",
		PresentationURL: "http://192.168.1.1/",
	}
	l := &lan{t: t, wan: goodWAN()}
	l.serve(cfg)
	for _, version := range []int{1, 2} {
		root := l.rootDocument(version).Device
		n := 0
		root.VisitDevices(func(d *goupnp.Device) {
			want := [...]string{
				string([]rune(hostile)[:63]), "https://example.com/?a=1&b=<2>", "M & N", "7", strings.Repeat("d", 127), "", "0<0",
				map[bool]string{true: "http://192.168.1.1/"}[n == 0],
			}
			if got := [...]string{
				d.Manufacturer, d.ManufacturerURL.Str, d.ModelName, d.ModelNumber, d.ModelDescription, d.ModelURL.Str, d.SerialNumber, d.PresentationURL.Str,
			}; got != want {
				t.Errorf("version %d, %s: %q, want %q", version, d.DeviceType, got, want)
			}
			n++
		})
		loc, _ := url.Parse(l.front.Location(version))
		doc, at := l.get(loc.Path), 0
		for _, name := range []string{
			"deviceType", "friendlyName", "manufacturer", "manufacturerURL", "modelDescription", "modelName", "modelNumber", "serialNumber", "UDN",
			"serviceList", "deviceList", "/deviceList", "presentationURL",
		} {
			i := strings.Index(doc, "<"+name+">")
			if name == "/deviceList" || name == "presentationURL" {
				i = strings.LastIndex(doc, "<"+name+">")
			}
			if i < at {
				t.Errorf("version %d: %s does not stand where UDA has it", version, name)
			}
			at = i
		}
	}
	if doc := start(t).rootDocument(1).Device; doc.Manufacturer != "Portcullis" || doc.ModelName != "Portcullis" || doc.SerialNumber != "" || doc.ModelNumber != "" || doc.PresentationURL.Str != "" {
		t.Errorf("K6: the default tells %+v", doc)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	m := newEngine(t)
	for name, change := range map[string]func(*igd.Config){
		"no Mapper":         func(c *igd.Config) { c.Mapper = nil },
		"no WAN":            func(c *igd.Config) { c.WAN = nil },
		"no Identify":       func(c *igd.Config) { c.Identify = nil },
		"no Log":            func(c *igd.Config) { c.Log = nil },
		"no UUID":           func(c *igd.Config) { c.UUID = "" },
		"UUID upper case":   func(c *igd.Config) { c.UUID = strings.ToUpper(baseUUID) },
		"UUID not hex":      func(c *igd.Config) { c.UUID = "x" + baseUUID[1:] },
		"UUID no dashes":    func(c *igd.Config) { c.UUID = strings.ReplaceAll(baseUUID, "-", "") },
		"no As":             func(c *igd.Config) { c.As = nil },
		"no Packets":        func(c *igd.Config) { c.Packets = nil },
		"no timeouts":       func(c *igd.Config) { c.OutboundTimeout = nil },
		"no InboundAllowed": func(c *igd.Config) { c.InboundAllowed = nil },
		"path with slash":   func(c *igd.Config) { c.Path = "a/b" },
		"path with blank":   func(c *igd.Config) { c.Path = "a b" },
		"path with escape":  func(c *igd.Config) { c.Path = "%41" },
	} {
		cfg := config(m, goodWAN())
		change(&cfg)
		if _, err := igd.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
