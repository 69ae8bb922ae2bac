package soap_test

import (
	"testing"

	"portcullis/soap"
)

// BenchmarkDecode reads what some control points send.
func BenchmarkDecode(b *testing.B) {
	for _, c := range calls(b) {
		switch c.name {
		case "miniupnpc", "windows-add", "dotnet":
			b.Run(c.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := soap.Decode(c.header, c.body); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkEncode writes the reply of a read.
func BenchmarkEncode(b *testing.B) {
	out := []soap.Arg{
		{Name: "NewInternalPort", Value: "6000"}, {Name: "NewInternalClient", Value: "192.168.1.10"},
		{Name: "NewEnabled", Value: "1"}, {Name: "NewPortMappingDescription", Value: "Somebody's game"},
		{Name: "NewLeaseDuration", Value: "3600"},
	}
	b.ReportAllocs()
	for b.Loop() {
		soap.EncodeResponse(service, "GetSpecificPortMappingEntry", out)
	}
}
