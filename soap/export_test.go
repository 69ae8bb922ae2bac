package soap

import "portcullis/internal/xml1"

// The bounds, for the tests that stand on both sides of them.
const (
	MaxDepth    = xml1.MaxDepth
	MaxElements = maxElements
	MaxAttrs    = xml1.MaxAttrs
	MaxName     = xml1.MaxName
)

// Work tells how far a body is looked at: how many elements were opened, and how
// many bytes the XML parser went before it was stopped or done.
func Work(body []byte) (elements int, bytesRead int64) {
	if scan(body) != nil {
		return 0, 0
	}
	var d decoder
	if d.open(body) != nil {
		return 0, 0
	}
	_, _ = d.envelope()
	return d.elements, int64(d.xml.Offset())
}
