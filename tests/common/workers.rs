//! Work that waits for programs most of the time, done side by side.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs `work` for every item on all processors; returns what went wrong.
pub(crate) fn in_parallel<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), String> + Sync,
) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let workers = 2 * std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(failure) = work(item) {
                        failures.lock().expect("no worker panics with it").push(failure);
                    }
                }
            });
        }
    });
    failures.into_inner().expect("no worker panics with it")
}

/// Fails with the first few of these, if there are any.
#[track_caller]
pub(crate) fn report(failures: &[String], tried: usize) {
    let shown = failures.iter().take(5).cloned().collect::<Vec<_>>();
    assert!(
        failures.is_empty(),
        "{} of {tried} failed; the first:\n\n{}",
        failures.len(),
        shown.join("\n\n")
    );
}
