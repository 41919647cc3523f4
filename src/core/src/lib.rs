//! What every image format of instar is built on.
//!
//! Data flows one way: [`Storage`] → [`ImageFormat`] / [`ExtentSource`] → [`Chain`] → [`RowReader`]
//! → a renderer (in the root package). This crate knows no format; a format registers itself with
//! [`register!`] and is found through [`Registry`].
//!
//! Units: every offset and length is in bytes unless its name says otherwise.

mod advice;
mod batch;
mod buffers;
mod chain;
mod detect;
mod error;
mod escape;
mod external;
mod fields;
mod format;
mod limits;
mod long_runs;
mod memory;
mod name;
mod notices;
mod open;
mod references;
mod registry;
mod rows;
mod second_level;
mod status;
mod storage;
mod table;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
mod version;
mod work;

pub use advice::Advice;
pub use batch::{Batch, Extent, Flow, Tail};
pub use chain::{Chain, Layer};
pub use detect::{Confidence, Detection, Probe, detect};
pub use error::{Error, ErrorKind, Result};
pub use escape::{Shown, escaped, is_invisible, quoted, shortened, shown_path};
pub use external::{Backing, ExternalPolicy, Found, Location, Opener, Reference, Role};
pub use fields::Fields;
pub use format::{Context, ExtentSource, Image, ImageFile, ImageFormat, open_layer};
pub use limits::Limits;
pub use memory::{Held, Memory};
pub use name::FileName;
pub use notices::{Notice, Notices, Severity};
pub use open::open_chain;
pub use references::References;
pub use registry::{Entry, Registration, Registry};
pub use rows::{Flags, Row, RowReader, Window};
pub use second_level::{Entries, Part, SecondLevel};
pub use status::{Place, Status};
pub use storage::{
    FileStorage, MAX_READ_UNIT, MemoryStorage, Run, RunKind, Storage, check_length, read_padded,
    read_unit, run_from,
};
pub use table::{Stretch, TableReader, Upper, zero_entries};
pub use version::{QemuVersion, Shape};

#[doc(hidden)]
pub use inventory as __inventory;

/// Bytes in one sector, the unit in which disks and most on-disk structures count.
pub const SECTOR: u64 = 512;

/// The largest virtual size and file length, in bytes, that is mapped: qemu's own bound,
/// 2^63 − 2^30 (`BDRV_MAX_LENGTH`).
pub const MAX_LENGTH: u64 = (1 << 63) - (1 << 30);
