package metrics_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/metrics"
)

// TestText: what is written, octet by octet; what a client chose cannot leave its label.
func TestText(t *testing.T) {
	t.Parallel()
	var text metrics.Text
	text.Family("a_total", metrics.Counter, "Things\nwith a \\ in it")
	text.Sample(3)
	text.Sample(18446744073709551615)
	text.Family("b", metrics.Gauge, "Others")
	text.Sample(0.25, "name", "a\"b\\c\nd\xffe", "other", "")
	var h metrics.Histogram
	for _, d := range []time.Duration{0, time.Millisecond / 2, time.Millisecond, 3 * time.Second, time.Hour} {
		h.Observe(d)
	}
	text.Histogram("c_seconds", "Times", &h)
	want := `# HELP a_total Things\nwith a \\ in it.
# TYPE a_total counter
a_total 3
a_total 1.8446744073709552e+19
# HELP b Others.
# TYPE b gauge
b{name="a\"b\\c\nd` + "\ufffd" + `e",other=""} 0.25
# HELP c_seconds Times.
# TYPE c_seconds histogram
c_seconds_bucket{le="0.0005"} 2
c_seconds_bucket{le="0.001"} 3
c_seconds_bucket{le="0.0025"} 3
c_seconds_bucket{le="0.005"} 3
c_seconds_bucket{le="0.01"} 3
c_seconds_bucket{le="0.025"} 3
c_seconds_bucket{le="0.05"} 3
c_seconds_bucket{le="0.1"} 3
c_seconds_bucket{le="0.25"} 3
c_seconds_bucket{le="0.5"} 3
c_seconds_bucket{le="1"} 3
c_seconds_bucket{le="2.5"} 3
c_seconds_bucket{le="5"} 4
c_seconds_bucket{le="+Inf"} 5
c_seconds_sum 3603.0015
c_seconds_count 5
`
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(string(text.Bytes()), "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
