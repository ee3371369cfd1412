# Stops the server of a private cluster and removes its directory ($1) once the owner has closed its end of the pipe on
# stdin: by dropping the cluster, or by dying. Signals to the owner's terminal are not for us.
trap '' INT TERM HUP
read -r closed
pid_file=$1/data/postmaster.pid
pid=$(head -n 1 "$pid_file" 2>/dev/null)
if [ -n "$pid" ] && kill -QUIT "$pid" 2>/dev/null; then
    # Ten seconds: an immediate stop takes a fraction of one, and escalates by itself after five.
    tries=0
    while [ "$tries" -lt 200 ] && [ -e "$pid_file" ] && kill -0 "$pid" 2>/dev/null; do
        sleep 0.05
        tries=$((tries + 1))
    done
    if [ -e "$pid_file" ]; then
        kill -KILL "$pid" 2>/dev/null
    fi
fi
# The server's last processes may still write files while the first attempt removes them.
rm -rf "$1" 2>/dev/null || { sleep 1; rm -rf "$1"; }
