# What every command here needs, to be sourced: goes to the project's directory, and installs PostgreSQL's server and a C
# compiler where they are missing, saying so first. Nothing is started, and no existing database is touched.

# A relative target directory is meant from where the command was called.
if [[ -n ${CARGO_TARGET_DIR:-} && $CARGO_TARGET_DIR != /* ]]; then
    export CARGO_TARGET_DIR=$PWD/$CARGO_TARGET_DIR
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stop() {
    echo "$0: $*" >&2
    exit 1
}

# The directory with the programs of PostgreSQL's server, in the places where the program looks too
# (src/private_postgres/binaries.rs).
postgres_server_dir() {
    local dir
    local -a dirs
    IFS=: read -r -a dirs <<<"$PATH"
    if command -v pg_config >/dev/null; then
        dirs+=("$(pg_config --bindir)")
    fi
    for dir in "${dirs[@]}" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
        /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
        if [[ -x $dir/initdb && -x $dir/postgres ]]; then
            echo "$dir"
            return 0
        fi
    done
    return 1
}

install_missing() {
    local -a packages=() root=()
    if ! postgres_server_dir >/dev/null || ! command -v psql >/dev/null; then
        # One test connects through PgBouncer, and says so where there is none: not a reason to install it alone.
        packages+=(postgresql pgbouncer)
    fi
    # Some of the libraries (ring, zstd) are built from C.
    if ! command -v cc >/dev/null; then
        packages+=(gcc libc6-dev)
    fi
    if [[ ${#packages[@]} == 0 ]]; then
        return
    fi
    if ! command -v apt-get >/dev/null; then
        stop "please install PostgreSQL's server with psql, and a C compiler (missing: ${packages[*]}); this script can" \
            "only do it with apt-get. On Fedora: dnf install postgresql-server gcc. On macOS: brew install postgresql"
    fi
    if [[ $EUID != 0 ]]; then
        command -v sudo >/dev/null || stop "please install as root: apt-get install ${packages[*]}"
        root=(sudo)
    fi
    echo "$0: installing with apt-get: ${packages[*]}" >&2
    if [[ ${packages[0]} == postgresql ]]; then
        echo "$0: Debian's package also makes a cluster of its own, on port 5432; it is not used here" >&2
    fi
    "${root[@]}" apt-get update
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${packages[@]}"
}

command -v cargo >/dev/null || stop "Rust is missing: install it from https://rustup.rs"
install_missing
