package httpd

import "portcullis/internal/http1"

// XML returns a response with a document. EXT stands there in capitals for UDA 1.0
// control points.
func XML(status int, doc []byte) *http1.Response {
	return &http1.Response{
		Status: status,
		Header: []http1.Field{{Name: "EXT"}, {Name: "Content-Type", Value: `text/xml; charset="utf-8"`}},
		Body:   doc,
	}
}

// busy is what a client is told for which there is no room now (RFC 9110 section
// 15.6.4).
func busy() *http1.Response {
	return http1.Empty(http1.ServiceUnavailable, http1.Field{Name: "Retry-After", Value: "1"})
}
