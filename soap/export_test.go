package soap

// The bounds, for the tests that stand on both sides of them.
const (
	MaxDepth    = maxDepth
	MaxElements = maxElements
	MaxAttrs    = maxAttrs
	MaxName     = maxName
)

// Work tells how far a body is looked at: how many elements were opened, and how
// many bytes the XML parser went before it was stopped or done.
func Work(body []byte) (elements int, bytesRead int64) {
	if scan(body) != nil {
		return 0, 0
	}
	d := newDecoder(body, "")
	_, _ = d.envelope()
	return d.elements, d.xml.InputOffset()
}
