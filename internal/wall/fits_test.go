package wall_test

import (
	"portcullis/internal/front"
	"portcullis/internal/wall"
	"portcullis/internal/warden"
)

// The ends fit the halves that they stand for.
var (
	_ front.Warden  = (*wall.Client)(nil)
	_ front.Sockets = (*wall.Client)(nil)
	_ wall.Warden   = (*warden.Warden)(nil)
	_ wall.Sockets  = (*warden.Warden)(nil)
)
