package clients

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"portcullis/internal/lab"
)

// metricsAt is where the daemon's are.
const metricsAt = "127.0.0.1:9180"

// scrape reads them as a collector on the gateway does.
func (r *rig) scrape() string {
	r.t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return r.Gateway.Dial(ctx, network, addr)
		},
	}}
	answer, err := client.Get("http://" + metricsAt + "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		r.t.Fatal(err, answer.Status)
	}
	if format := expfmt.ResponseFormat(answer.Header); format.FormatType() != expfmt.TypeTextPlain {
		r.t.Errorf("the content type is %q", answer.Header.Get("Content-Type"))
	}
	return string(text)
}

// TestPrometheus: Prometheus' own parser and linter find nothing to say about the metrics, which
// tell of grants, renewals, refusals and traffic; and each metric that the dashboard names is
// there. A host of the LAN reads none.
func TestPrometheus(t *testing.T) {
	r := startSpeaking(t, "Prometheus' parser and linter", "", "\n[metrics]\nlisten = \""+metricsAt+"\"\nmappings = true\n")
	before := r.scrape()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, port := range []uint16{6000, 6000, 22} {
		_, err := r.host.MapPCP(ctx, "UDP", port, port, time.Hour)
		if (err == nil) != (port == 6000) {
			t.Errorf("port %d: %v", port, err)
		}
	}
	text := r.scrape()
	for told := `result="granted",protocol="pcp"} 1`; !strings.Contains(text, told); text = r.scrape() { // what was counted before is told again for a while
		if ctx.Err() != nil {
			t.Fatalf("%s is missing in\n%s", told, text)
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`portcullis_requests_total{result="granted",protocol="pcp"} 1`,
		`portcullis_requests_total{result="renewed",protocol="pcp"} 1`,
		`portcullis_requests_total{result="denied",protocol="pcp"} 1`,
		`portcullis_refusals_total{reason="privileged-port",protocol="pcp"} 1`,
		`portcullis_mappings{interface="br-lan",family="4"} 1`,
		`portcullis_mappings{interface="br-lan",family="6"} 0`,
		`portcullis_mappings_limit 1024`,
		`portcullis_clients 1`,
		`portcullis_wan_up{interface="wan0"} 1`,
		`portcullis_request_duration_seconds_count 3`,
		`portcullis_front_ends_total 0`,
		`portcullis_mapping_packets_total{protocol="udp",external_port="6000",internal="` + r.host.Addr.String() + `:6000",remote="",interface="br-lan",mac="` + r.mac() + `"} 0`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("%s is missing in\n%s", line, text)
		}
		if strings.Contains(before, line+"\n") && strings.Contains(line, "_total{result") {
			t.Errorf("%s was there before", line)
		}
	}
	board, err := os.ReadFile("../../etc/grafana/portcullis.json")
	if err != nil || !json.Valid(board) {
		t.Fatal("the dashboard is no JSON", err)
	}
	named := regexp.MustCompile(`portcullis_[a-z_]+`).FindAllString(string(board), -1)
	if len(named) < 15 {
		t.Errorf("the dashboard names %d metrics", len(named))
	}
	shown := map[string]bool{}
	for _, name := range named {
		shown[strings.TrimSuffix(name, "_bucket")] = true
		if families[strings.TrimSuffix(name, "_bucket")] == nil {
			t.Errorf("the dashboard names %s, which is not exported", name)
		}
	}
	for name := range families {
		if !shown[name] && name != "portcullis_mapping_packets_total" { // octets are shown
			t.Errorf("%s is not on the dashboard", name)
		}
	}
	for _, at := range []string{lab.GatewayLAN.String(), "127.0.0.1"} {
		if c, err := r.host.Dial(t.Context(), "tcp", net.JoinHostPort(at, "9180")); err == nil {
			c.Close()
			t.Errorf("a host of the LAN reaches the metrics at %s", at)
		}
	}
	matrix.saw(r.client, "reads the metrics")
}

// mac returns the MAC address of the mapping's host.
func (r *rig) mac() string {
	r.t.Helper()
	list, err := r.owner.Mappings(r.t.Context())
	if err != nil || len(list) != 1 {
		r.t.Fatal(list, err)
	}
	return list[0].ClientMAC
}
