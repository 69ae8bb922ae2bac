function __portcullis
	set -lx PATH $PATH /usr/local/sbin /usr/sbin
	set -l words (commandline -opc) (commandline -ct)
	for line in (portcullis __complete $words[2..] 2>/dev/null)
		if test "$line" = :files
			__fish_complete_path (string replace -r '^--[a-z]+=' '' -- (commandline -ct))
		else
			echo $line
		end
	end
end
complete -c portcullis -f -a '(__portcullis)'
