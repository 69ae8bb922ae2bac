package portmap

// Queued returns how many requests wait for the engine.
func (e *Engine) Queued() int { return len(e.ops) }
