# shellcheck shell=bash
# What the scripts share: sentences on the terminal, and finding or installing what a build needs.
# Sourced, not run. It expects `set -euo pipefail`, and leaves the caller in the repository's root.

# The least Rust that builds the workspace: `rust-version` in Cargo.toml says the same.
readonly rust_minor_min=88

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# Without it bash forgets `set -e` inside $(...), and a build that failed would go on as one that succeeded.
shopt -s inherit_errexit

# A heading, a remark, and the end: what happens goes to standard error, results to standard output.
say() { printf '\n==> %s\n' "$*" >&2; }
note() { printf '    %s\n' "$*" >&2; }
die() {
    printf '\nerror: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
    exit 1
}

# Fails with what to do about it unless cargo and rustc are there and new enough.
need_rust() {
    # rustup puts cargo here, and a shell that was open before does not know it yet.
    if ! command -v cargo >/dev/null 2>&1 && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    command -v cargo >/dev/null 2>&1 || die "Rust is not installed (no cargo on the PATH)." \
        "Install it as https://www.rust-lang.org/tools/install says, and run this again."
    local version minor
    version=$(rustc --version) || die "cargo is there, but rustc does not run." "Try: rustup default stable"
    minor=$(sed -n 's/^rustc 1\.\([0-9]*\).*/\1/p' <<<"$version")
    if [ -z "$minor" ] || [ "$minor" -lt "$rust_minor_min" ]; then
        die "Rust 1.$rust_minor_min or newer is needed; this is $version." \
            "Update it with: rustup update stable (or install rustup, as https://www.rust-lang.org/tools/install says)"
    fi
}

# Whether bindgen will find libclang and the compiler's own headers. libclang-cpp.so, which other tools bring, is not
# it, and libclang.so alone finds no stddef.h.
has_libclang() {
    [ -z "${LIBCLANG_PATH:-}" ] || return 0
    local found dir lib=false
    for dir in /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib /usr/lib64 /usr/local/lib; do
        for found in "$dir"/libclang.so* "$dir"/libclang-[0-9]*.so*; do
            [ ! -e "$found" ] || lib=true
        done
    done
    $lib || return 1
    for found in /usr/lib/llvm-*/lib/clang/*/include/stddef.h /usr/lib/clang/*/include/stddef.h \
        /usr/lib64/clang/*/include/stddef.h /usr/local/lib/clang/*/include/stddef.h; do
        [ ! -e "$found" ] || return 0
    done
    return 1
}

# Installs what compiling RocksDB needs and is missing; does nothing where all is there. Without apt, or
# without the right to use it, it says what to type instead.
need_packages() {
    local missing=()
    command -v g++ >/dev/null 2>&1 || missing+=(g++)
    command -v ccache >/dev/null 2>&1 || missing+=(ccache)
    has_libclang || missing+=(libclang-dev)
    [ ${#missing[@]} -gt 0 ] || return 0

    local as_root=() may_install=true
    if ! command -v apt-get >/dev/null 2>&1; then
        may_install=false
    elif [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo)
        if ! command -v sudo >/dev/null 2>&1 || { [ ! -t 0 ] && ! sudo -n true 2>/dev/null; }; then
            may_install=false
        fi
    fi
    if ! $may_install && [ "${missing[*]}" = ccache ]; then
        note "ccache is not installed: RocksDB is compiled anew for every clone and profile."
        return 0
    fi
    if ! command -v apt-get >/dev/null 2>&1; then
        die "the build needs a C++ compiler, libclang and, to be quick the next time, ccache; missing: ${missing[*]}" \
            "Install them with this system's package manager and run this again."
    fi
    if ! $may_install; then
        die "the build needs packages that are missing, and installing them needs root. Type:" \
            "apt-get update && apt-get install -y ${missing[*]}"
    fi
    say "Installing ${missing[*]}"
    local log
    log=$(mktemp)
    if ! { "${as_root[@]}" apt-get update &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends "${missing[@]}"; } </dev/null 2>&1 |
        tee "$log" | sed -u -n 's/^\(Get:[^ ]*\|Setting up\) .*/    &/p' | cut -c 1-100 >&2; then
        tail -n 30 "$log" >&2
        rm -f "$log"
        die "apt-get failed; its words are above."
    fi
    rm -f "$log"
}

# Where cargo puts what it builds.
target_dir() {
    cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}

# Builds the binary as it is meant to be run, and prints its path.
build_release() {
    local target
    target=$(target_dir) || return 1
    if [ ! -x "$target/release/quorate" ]; then
        note "The first build on a machine compiles RocksDB: 25 to 40 minutes of CPU time, shared by the cores"
        note "($(nproc) here). After that, ccache has it for every clone and profile."
    fi
    cargo build --release --locked -p quorate-cli >&2 || return 1
    printf '%s\n' "$target/release/quorate"
}

# Whether nothing on this machine has the port, for TCP and UDP. The kernel's own tables: no tool is needed.
port_is_free() {
    local hex tables=()
    local table
    hex=$(printf '%04X' "$1")
    for table in /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6; do
        [ -r "$table" ] && tables+=("$table")
    done
    # Of a TCP port only listeners (state 0A) are in the way; a UDP socket has state 07.
    ! awk -v port=":$hex" 'index($2, port) == length($2) - 4 && ($4 == "0A" || $4 == "07") { found = 1 }
        END { exit !found }' "${tables[@]}"
}

# The first base from 7400 on whose ports base+1 to base+COUNT are free. 32768 is where the kernel's
# own ports begin.
free_base_port() {
    local count=$1 base port
    for ((base = 7400; base < 32000; base += 10)); do
        for ((port = base + 1; port <= base + count; port++)); do
            port_is_free "$port" || continue 2
        done
        printf '%s\n' "$base"
        return 0
    done
    die "no $count free ports in a row between 7400 and 32000."
}
