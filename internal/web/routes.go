package web

import (
	"context"
	"errors"
	"strings"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/http1"
	"portcullis/internal/json"
)

// serveState answers with all that the page shows.
func (s *Server) serveState(ctx context.Context, _ *http1.Request) *http1.Response {
	return &http1.Response{Status: http1.OK, Header: jsonHeader(), Body: s.state.get(ctx)}
}

// signIn begins a session for who has the word of a link.
func (s *Server) signIn(_ context.Context, r *http1.Request) *http1.Response {
	var in struct {
		Word string `json:"word"`
	}
	if err := decode(r, &in); err != nil {
		return fail(http1.BadRequest, "bad-request", err.Error())
	}
	now := time.Now()
	cookie, key, ok := s.keys.spend(in.Word, now)
	switch { // who has the word gets in, however many guess
	case !ok && !s.keys.paced(now):
		return fail(http1.ServiceUnavailable, "busy", "too many have tried to sign in; wait a moment")
	case !ok:
		return fail(http1.Forbidden, "link", "this link has been used, or is too old, or was never one")
	}
	answer := reply(map[string]string{"key": key})
	answer.Header = append(answer.Header, http1.Field{Name: "Set-Cookie", Value: cookieName + "=" + cookie + "; Path=/; HttpOnly; SameSite=Strict"})
	return answer
}

// signOut ends the session.
func (s *Server) signOut(_ context.Context, r *http1.Request) *http1.Response {
	for _, cookie := range cookies(r) {
		s.keys.end(cookie)
	}
	answer := reply(struct{}{})
	answer.Header = append(answer.Header, http1.Field{Name: "Set-Cookie", Value: cookieName + "=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"})
	return answer
}

// named is a wish about one thing of a list.
type named struct {
	ID uint64 `json:"id"`
}

// close closes one mapping.
func (s *Server) close(ctx context.Context, r *http1.Request) *http1.Response {
	var in named
	if err := decode(r, &in); err != nil {
		return fail(http1.BadRequest, "bad-request", err.Error())
	}
	gone, err := s.cfg.Owner.Delete(ctx, control.Deletion{ID: in.ID})
	return s.done(gone, err)
}

// decide says yes or no to what waits.
func (s *Server) decide(say func(context.Context, control.Answer) (control.Approval, error)) func(context.Context, *http1.Request) *http1.Response {
	return func(ctx context.Context, r *http1.Request) *http1.Response {
		var in control.Answer
		if err := decode(r, &in); err != nil {
			return fail(http1.BadRequest, "bad-request", err.Error())
		}
		made, err := say(ctx, in)
		return s.done(made, err)
	}
}

// revoke takes an answer back.
func (s *Server) revoke(ctx context.Context, r *http1.Request) *http1.Response {
	var in named
	if err := decode(r, &in); err != nil {
		return fail(http1.BadRequest, "bad-request", err.Error())
	}
	closed, err := s.cfg.Owner.Revoke(ctx, in.ID)
	return s.done(closed, err)
}

// done returns the answer to what was asked of the daemon.
func (s *Server) done(result any, err error) *http1.Response {
	s.state.stale()
	var no *control.Refusal
	switch {
	case errors.As(err, &no):
		return fail(http1.Conflict, no.Reason, no.Failure.Error)
	case err != nil:
		return fail(http1.ServiceUnavailable, "daemon", err.Error())
	}
	return reply(result)
}

// decode reads the one JSON object that is a request's body.
func decode(r *http1.Request, v any) error {
	return json.UnmarshalStrict(r.Body, v)
}

func jsonHeader() []http1.Field {
	return []http1.Field{{Name: "Content-Type", Value: "application/json"}}
}

func reply(v any) *http1.Response { return encoded(http1.OK, v) }

func fail(status int, reason, text string) *http1.Response {
	return encoded(status, control.Failure{Reason: reason, Error: strings.TrimSpace(text)})
}

func encoded(status int, v any) *http1.Response {
	body, err := json.Marshal(v)
	if err != nil {
		return http1.Empty(http1.InternalServerError) // which no type of ours can make happen
	}
	return &http1.Response{Status: status, Header: jsonHeader(), Body: body}
}
