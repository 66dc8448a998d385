# Sourced by the other scripts: the cache outside the tree, and how things get
# into it. Results go to stdout, so whatever is said to people goes to stderr.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${CHANCERY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/chancery}

say() { printf 'chancery: %s\n' "$*" >&2; }

die() {
	say "error: $1"
	[ $# -lt 2 ] || say "hint: $2"
	exit 1
}

# cached NAME WHAT MAKER: unless the cache holds directory NAME, says WHAT and
# calls MAKER with an empty directory to fill. The directory appears whole or
# not at all, and two callers at once make it once.
cached() {
	local name=$1 what=$2 maker=$3 began=$SECONDS
	local dir=$cache/$name
	[ ! -d "$dir" ] || return 0
	mkdir -p "$cache"
	exec {lock}>"$cache/.$name.lock"
	flock "$lock"
	if [ ! -d "$dir" ]; then
		say "$what"
		rm -rf "$dir.part"
		mkdir "$dir.part"
		"$maker" "$dir.part" >&2 || die "$name could not be made in $cache"
		mv "$dir.part" "$dir"
		say "$name is in $cache after $((SECONDS - began)) s"
	fi
	exec {lock}>&-
}

# debian COMMAND PACKAGE...: installs packages of Debian's unless COMMAND is
# there already. Without root it says what to install.
debian() {
	local command=$1
	shift
	! command -v "$command" >/dev/null || return 0
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "$command is not on PATH" "apt-get install $*"
	say "installing $* from Debian"
	apt-get update -qq >&2
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}
