//! What a format says of an image besides its extents.

use std::sync::{Arc, Mutex, PoisonError};

use super::{extents, ignoring, open, open_with};
use crate::{Context, ErrorKind, ImageFormat, MemoryStorage, Notices};

/// The kind and the text of the error with which an image is opened or mapped.
///
/// # Panics
/// If it is mapped.
pub fn refusal(format: &dyn ImageFormat, storage: MemoryStorage) -> (ErrorKind, String) {
    let list = open(format, storage).and_then(|mut source| extents(source.as_mut()));
    let error = list.expect_err("the image is refused");
    (error.kind(), error.to_string())
}

/// The warnings with which an image is opened and mapped, in their order.
///
/// # Panics
/// If it is not mapped.
pub fn warnings(format: &dyn ImageFormat, storage: MemoryStorage) -> Vec<String> {
    let (context, heard) = listening(ignoring());
    let mut source = open_with(format, storage, &context).expect("the image is opened");
    extents(source.as_mut()).expect("the image is mapped");
    heard.take()
}

/// Warnings that were heard in a context.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    /// Their texts until now, in their order; they are forgotten.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The same context, but its warnings can be asked for.
pub fn listening(context: Context) -> (Arc<Context>, Heard) {
    let heard = Heard::default();
    let sink = heard.clone();
    let notices = Notices::new(false, move |notice| {
        sink.0.lock().unwrap_or_else(PoisonError::into_inner).push(notice.text.clone());
    });
    (Arc::new(Context { notices, ..context }), heard)
}
