# bash completion for mptcp-stat
complete -W '-w --watch --watch= -j --json -c --counters -a --all -i --interval= --help --version' mptcp-stat
