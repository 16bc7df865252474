#!/bin/bash
# A Slurm of one machine for tests: slurmctld and three slurmd, with a munged of their own, all in one folder.
#
#   apt-get install -y slurm-wlm munge          (Debian, Ubuntu)
#   tests/slurm/cluster.sh start DIR            as root; prints what to export
#   tests/slurm/cluster.sh kill-node DIR NAME   as a machine that fails: slurmd and all it runs, by SIGKILL
#   tests/slurm/cluster.sh start-node DIR NAME
#   tests/slurm/cluster.sh stop DIR
set -eu
verb=$1 dir=$(realpath -m "$2")
nodes="n1 n2 n3"
export SLURM_CONF=$dir/slurm.conf

start_node() {
    mkdir -p "$dir/spool-$1"
    slurmd -N "$1" -f "$SLURM_CONF"
}

configure() {
    local port=17010
    cat > "$SLURM_CONF" <<CONF
ClusterName=kto-eval-test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=17001
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmdTimeout=15
SlurmctldTimeout=15
KillWait=2
MinJobAge=60
JobRequeue=1
CONF
    for node in $nodes; do
        port=$((port + 1))
        echo "NodeName=$node NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$port CPUs=1" >> "$SLURM_CONF"
    done
    echo "PartitionName=test Nodes=${nodes// /,} Default=YES MaxTime=INFINITE State=UP" >> "$SLURM_CONF"
}

start() {
    mkdir -p "$dir/state" "$dir/munge"
    chmod 755 "$dir"
    local owner
    owner=$(id -un)
    head -c 1024 /dev/urandom > "$dir/munge/key"
    chmod 700 "$dir/munge"
    chmod 600 "$dir/munge/key"
    chown -R "$owner" "$dir/munge"
    munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munge/pid" \
        --log-file="$dir/munge/log" --seed-file="$dir/munge/seed"
    configure
    slurmctld -f "$SLURM_CONF" -c
    for node in $nodes; do start_node "$node"; done
    for _ in $(seq 100); do
        [ "$(sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l)" = 3 ] && break
        sleep 0.3
    done
    sinfo >&2
    echo "export SLURM_CONF=$SLURM_CONF"
}

# The step daemons that a node's slurmd has started bear its name in their arguments or environment.
kill_node() {
    local daemon step
    daemon=$(cat "$dir/slurmd-$2.pid")
    for step in $(pgrep -x slurmstepd || true); do
        if tr '\0' '\n' < "/proc/$step/environ" 2>/dev/null | grep -q "SLURM_CONF=$SLURM_CONF"; then
            for child in $(pgrep -P "$step" || true); do
                if tr '\0' '\n' < "/proc/$child/environ" 2>/dev/null | grep -qx "SLURMD_NODENAME=$2"; then
                    pkill -KILL -P "$child" || true
                    kill -KILL "$child" "$step" || true
                fi
            done
        fi
    done
    kill -KILL "$daemon"
}

stop() {
    local pid
    for node in $nodes; do
        pid=$(cat "$dir/slurmd-$node.pid" 2>/dev/null) && kill "$pid" 2>/dev/null || true
    done
    for file in "$dir/slurmctld.pid" "$dir/munge/pid"; do
        pid=$(cat "$file" 2>/dev/null) && kill "$pid" 2>/dev/null || true
    done
}

case $verb in
    start) start ;;
    stop) stop ;;
    start-node) start_node "$3" ;;
    kill-node) kill_node "$verb" "$3" ;;
    *) echo "unknown verb $verb (known: start, stop, start-node, kill-node)" >&2; exit 2 ;;
esac
