//! Our program with a terminal as its standard output.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;

use pretty_assertions::assert_eq;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::binary::command;

/// What our program prints on a terminal; it is to succeed without a message.
pub(crate) fn on_terminal(folder: &Path, args: &[&[u8]]) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let path = Path::new(OsStr::from_bytes(name.to_bytes()));
    let terminal = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut command = command(folder);
    command.args(args.iter().map(|arg| OsStr::from_bytes(arg))).stdout(terminal);
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    // Or reading the other end never ends.
    drop(command);
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    let mut master = File::from(master);
    // The last read fails, as nobody is at the other end any more.
    while let Ok(count @ 1..) = master.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
    }
    let ran = child.wait_with_output().unwrap();
    assert_eq!((ran.status.code(), ran.stderr.as_slice()), (Some(0), &b""[..]));
    String::from_utf8(bytes).unwrap().replace("\r\n", "\n")
}
