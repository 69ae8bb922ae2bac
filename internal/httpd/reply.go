package httpd

import (
	"net/http"
	"strconv"
)

// WriteXML sends a document. DATE comes from net/http, SERVER from the server's
// configuration; EXT must stand there in capitals for UDA 1.0 control points,
// which Header.Set would rewrite.
func WriteXML(w http.ResponseWriter, status int, doc []byte) {
	h := w.Header()
	h["EXT"] = []string{""}
	h.Set("Content-Type", `text/xml; charset="utf-8"`)
	h.Set("Content-Length", strconv.Itoa(len(doc)))
	w.WriteHeader(status)
	_, _ = w.Write(doc) // the client has gone when this fails
}

// empty sends a status and no body, so that net/http has nothing whose type it
// could guess.
func empty(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(status)
}
