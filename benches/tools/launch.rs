//! Runs and measures one process, for `benches/compare`; also the limits that it is compared with.
//!
//! ```text
//! launch run null|pipe -- PROGRAM ARGUMENT…       times, peak memory and status, as JSON
//! launch same -- PROGRAM ARGUMENT… -- PROGRAM …   whether two programs print the same bytes
//! launch read LIST                                reads every range of LIST
//! launch write BYTES                              writes so many bytes from a ready buffer
//! ```
//!
//! LIST has lines of offset, length and path. A program of its own, and a small one: the kernel
//! counts the memory of whoever starts a process to that process's peak.

use std::error::Error;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Bytes that are read at once.
const READ: usize = 1 << 20;
/// As instar writes: this much at once, into a pipe that holds that.
const WRITE: usize = 256 << 10;
const PIPE: usize = 1 << 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parts: Vec<&[String]> = arguments.split(|argument| argument == "--").collect();
    let words: Vec<&str> = parts.first().map_or(vec![], |p| p.iter().map(String::as_str).collect());
    let done = match (words.as_slice(), parts.get(1..).unwrap_or_default()) {
        (["run", sink], [command]) => {
            run(command, *sink == "pipe").map(|found| println!("{found}"))
        }
        (["same"], [one, two]) => same(one, two).map(|found| println!("{found}")),
        (["read", list], []) => read(list),
        (["write", bytes], []) => write(bytes),
        _ => Err("usage: launch run|same|read|write …".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("launch: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: &[String], stdout: Stdio) -> Outcome<Child> {
    let (program, arguments) = command.split_first().ok_or("no program")?;
    Ok(Command::new(program).args(arguments).stdin(Stdio::null()).stdout(stdout).spawn()?)
}

fn run(command: &[String], is_pipe: bool) -> Outcome<Value> {
    let sink = if is_pipe { Stdio::piped() } else { Stdio::null() };
    let begin = Instant::now();
    let mut child = start(command, sink)?;
    let mut bytes = 0;
    if let Some(mut pipe) = child.stdout.take() {
        // Not made before: it would count.
        let mut buffer = vec![0; READ];
        loop {
            match pipe.read(&mut buffer)? {
                0 => break,
                count => bytes += count,
            }
        }
    }
    let status = child.wait()?;
    let wall = begin.elapsed().as_secs_f64();
    // It was the only child.
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(json!({
        "wall": wall,
        "cpu": seconds(usage.user_time())? + seconds(usage.system_time())?,
        "memory": usage.max_rss(),
        "bytes": bytes,
        "status": status.into_raw(),
    }))
}

fn seconds(time: TimeVal) -> Outcome<f64> {
    Ok(f64::from(u32::try_from(time.tv_sec())?) + f64::from(u32::try_from(time.tv_usec())?) / 1e6)
}

fn same(one: &[String], two: &[String]) -> Outcome<Value> {
    let mut children = [start(one, Stdio::piped())?, start(two, Stdio::piped())?];
    let mut pipes = Vec::new();
    for child in &mut children {
        pipes.push(child.stdout.take().ok_or("no pipe")?);
    }
    let [first, second] = pipes.as_mut_slice() else { return Err("two pipes".into()) };
    let (mut a, mut b) = (vec![0; READ], vec![0; READ]);
    let (mut bytes, mut rows, mut equal) = (0, 0, true);
    loop {
        let (got, other) = (fill(first, &mut a)?, fill(second, &mut b)?);
        let (got, other) = (a.get(..got).unwrap_or_default(), b.get(..other).unwrap_or_default());
        equal &= got == other;
        bytes += got.len();
        rows += got.iter().filter(|byte| **byte == b'\n').count();
        if got.is_empty() && other.is_empty() {
            break;
        }
    }
    let mut statuses = Vec::new();
    for mut child in children {
        statuses.push(child.wait()?.into_raw());
    }
    Ok(json!({ "same": equal, "bytes": bytes, "rows": rows, "statuses": statuses }))
}

/// Reads until the buffer is full or the stream ends.
fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match stream.read(room)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

fn read(list: &str) -> Outcome<()> {
    let mut open: Option<(&str, File)> = None;
    let mut buffer = vec![0; READ];
    let text = std::fs::read_to_string(list)?;
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().ok_or("a line has offset, length and path");
        let (mut at, mut left) = (word()?.parse::<u64>()?, word()?.parse::<usize>()?);
        let path = word()?;
        let file = match open.take() {
            Some((known, file)) if known == path => file,
            _ => File::open(path)?,
        };
        while left > 0 {
            let count = left.min(READ);
            file.read_exact_at(buffer.get_mut(..count).ok_or("a full buffer")?, at)?;
            at += count as u64;
            left -= count;
        }
        open = Some((path, file));
    }
    Ok(())
}

fn write(bytes: &str) -> Outcome<()> {
    let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    // Fails on what is no pipe.
    let _ = rustix::pipe::fcntl_setpipe_size(&out, PIPE);
    let buffer = vec![b'x'; WRITE];
    let mut left: usize = bytes.parse()?;
    while left > 0 {
        let count = left.min(WRITE);
        match out.write_all(buffer.get(..count).ok_or("a full buffer")?) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            done => done?,
        }
        left -= count;
    }
    Ok(())
}
