package control_test

import (
	"encoding/json"
	"testing"

	"portcullis/internal/control"
	"portcullis/internal/http1"
	"portcullis/portmap"
)

// FuzzDelete: whatever root's tools send, nothing is removed but what was named in
// exactly one way, and a body that is not understood removes nothing.
func FuzzDelete(f *testing.F) {
	for _, s := range []string{
		`{"id":7}`, `{"all":true}`, `{"protocol":"udp","port":3075}`, `{}`, `{"id":7,"all":true}`, `{"protocol":"udp"}`,
		`{"port":1}`, `{"protocol":"sctp","port":1}`, `{"id":-1}`, `{"id":1e300}`, `{"ids":[1]}`, `[`, ``, `{"id":7}{"id":8}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var asked []portmap.Selector
		w := control.Delete(body, func(s portmap.Selector) ([]portmap.Mapping, error) {
			asked = append(asked, s)
			return nil, nil
		})
		if (w.Status == http1.OK) != (len(asked) == 1) || len(asked) > 1 {
			t.Fatalf("HTTP %d, asked %v", w.Status, asked)
		}
		if w.Status != http1.OK {
			var why control.Failure
			if err := json.Unmarshal(w.Body, &why); w.Status != http1.BadRequest || err != nil || why.Error == "" {
				t.Errorf("HTTP %d without a reason: %s", w.Status, w.Body)
			}
			return
		}
		var d control.Deletion
		if err := json.Unmarshal(body, &d); err != nil {
			t.Fatalf("%q was obeyed: %v", body, err)
		}
		s := asked[0]
		if everything := s.ID == 0 && s.FirstPort == 0; everything != d.All || s.ID != d.ID || s.FirstPort != d.Port || s.LastPort != d.Port || s.Client.Via != portmap.ViaOwner || !s.Anybody {
			t.Errorf("%q removes %+v", body, s)
		}
	})
}
