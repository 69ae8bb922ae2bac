package portmap

import (
	"context"
	"time"
)

// Verdict is what Map would make of a request.
type Verdict struct {
	Decision         // of the policy; zero where it was not asked
	Mapping  Mapping // what would be open, where Err is nil
	Renewal  bool    // it is open already, and would get a new lease
	Err      error   // why it would be refused, as Map says it
}

// Explain returns what Map would make of r now, and does nothing of it: the engine decides in
// its turn, by the terms that hold and the table as it is, and nobody hears of it. The error is
// the engine's or ctx's, not the verdict.
func (e *Engine) Explain(ctx context.Context, r Request) (Verdict, error) {
	if r.Kind == NAT4 {
		e.cfg.Gateway.Look(ctx)
	}
	var v Verdict
	_, err := e.do(&op{
		ctx: ctx,
		plan: func(t *Table) (outcome, error) {
			_, _, c, d, err := e.planFirst(time.Now(), t, r, e.cfg.Gateway.View(), 1)
			v = Verdict{Decision: d, Err: err}
			if err == nil {
				v.Mapping, v.Renewal = *c.New, c.Old != nil
			}
			return outcome{}, nil
		},
		failed: func(error) {},
	})
	if err != nil {
		return Verdict{}, err
	}
	return v, nil
}
