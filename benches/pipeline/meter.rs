//! What processes cost, as Linux counts it in /proc.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Linux counts the time of processes in hundredths of a second, for every program and on every machine (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// The CPU time of a process: its own, and that of children which it has waited for.
pub(crate) struct Cpu {
    own: Duration,
    waited: Duration,
    parent: u32,
}

fn cpu_of(pid: u32) -> Option<Cpu> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may hold spaces.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = |ticks: u64| Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND);
    Some(Cpu {
        own: ticks(field(14)? + field(15)?),
        waited: ticks(field(16)? + field(17)?),
        parent: u32::try_from(field(4)?).ok()?,
    })
}

/// The CPU time that a running process has taken.
pub(crate) fn process_cpu(pid: u32) -> Duration {
    cpu_of(pid).map_or(Duration::ZERO, |cpu| cpu.own)
}

/// The CPU time that a server and its children have taken, those that have ended too.
pub(crate) fn server_cpu(pid: u32) -> Duration {
    let all: BTreeMap<u32, Cpu> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Some((pid, cpu_of(pid)?))
        })
        .collect();
    let server = all.get(&pid).map_or(Duration::ZERO, |cpu| cpu.own + cpu.waited);
    let children = all.values().filter(|cpu| cpu.parent == pid);
    server + children.map(|cpu| cpu.own).sum::<Duration>()
}

/// The most memory that a running process has held, in bytes.
pub(crate) fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    kilobytes.unwrap_or(0) * 1_024
}

/// The bytes that the files of a directory take on the disk.
pub(crate) fn disk_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;

    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            // The kernel counts blocks of 512 bytes, whatever those of the file system are.
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
