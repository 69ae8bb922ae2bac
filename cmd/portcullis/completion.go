package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"portcullis/internal/cmdline"
)

// completeArgument is the command by which the shells ask what the last of the words behind
// it can become. It is no row of the table, for no person gives it.
const completeArgument = "__complete"

// paths are where the program may be that is not in the PATH of who has no root.
const paths = `PATH=$PATH:/usr/local/sbin:/usr/sbin`

// completions are what each shell reads. They ask the program, so that they fit its version,
// and give up silently where it is not there. A line ":files" stands for names of files. What
// has a colon bash is not offered, for which a word ends there.
var completions = map[string]string{
	"bash": `_portcullis() {
	local line word IFS=$'\n'
	COMPREPLY=()
	while read -r line; do
		word=${line%%$'\t'*}
		if [ "$line" = :files ]; then
			word=${COMP_WORDS[COMP_CWORD]}
			compopt -o filenames
			COMPREPLY+=($(compgen -f -- "${word#=}"))
		elif [[ $word != *:* ]]; then
			COMPREPLY+=("$word")
		fi
	done < <(` + paths + ` portcullis ` + completeArgument + ` "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _portcullis portcullis
`,
	"zsh": `#compdef portcullis
_portcullis() {
	local line
	local -a found
	for line in "${(@f)$(` + paths + ` portcullis ` + completeArgument + ` "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
		if [[ $line == :files ]]; then
			compset -P '*='
			_files
		elif [[ -n $line ]]; then
			found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
		fi
	done
	(( ${#found} )) && _describe portcullis found
}
if [ "$funcstack[1]" = _portcullis ]; then
	_portcullis "$@"
else
	compdef _portcullis portcullis
fi
`,
	"fish": `function __portcullis
	set -lx PATH $PATH /usr/local/sbin /usr/sbin
	set -l words (commandline -opc) (commandline -ct)
	for line in (portcullis ` + completeArgument + ` $words[2..] 2>/dev/null)
		if test "$line" = :files
			__fish_complete_path (string replace -r '^--[a-z]+=' '' -- (commandline -ct))
		else
			echo $line
		end
	end
end
complete -c portcullis -f -a '(__portcullis)'
`,
}

func runCompletion(_ context.Context, call *cmdline.Call) error {
	_, err := io.WriteString(call.Out, completions[call.Args[0]])
	return err
}

// complete prints what the last word can become, a line each, with a tab before what it means.
func complete(ctx context.Context, out io.Writer, words []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	found, at := cmdline.Complete(commands(), words[:len(words)-1], words[len(words)-1])
	for _, w := range append(found, offered(ctx, at)...) {
		fmt.Fprintln(out, strings.TrimSuffix(w.Text+"\t"+w.Does, "\t"))
	}
	if slices.Contains(at.Values, "FILE") {
		fmt.Fprintln(out, ":files")
	}
}
