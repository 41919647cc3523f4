//! What the layers of a chain may hold in memory together.

use crate::ExtentSource;

/// Bytes that all sources buffer together; who goes beyond gives back (instar's own limit).
const LIMIT: u64 = 8 << 20;

/// Bytes of buffers and of what is held besides: sources that hold much may buffer less (instar's own
/// limit).
const TOTAL: u64 = 20 << 20;

/// Extents that the batches of all layers hold together, 1.5 MiB: in long chains each holds fewer
/// (instar's own limit).
const EXTENTS: usize = 64 << 10;

/// The bytes that the sources of one chain buffer.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    total: u64,
}

impl Buffers {
    /// Counts the buffers of `source`, which so far had `counted` bytes of the total. What is too
    /// much is given back by the one who asked for it last: nobody else has to be reached. `held` are
    /// the bytes that all layers hold besides.
    pub(crate) fn settle(&mut self, source: &mut dyn ExtentSource, counted: &mut u64, held: u64) {
        let others = self.total.saturating_sub(*counted);
        *counted = source.buffered();
        if others.saturating_add(*counted) > LIMIT.min(TOTAL.saturating_sub(held)) {
            source.release();
            *counted = 0;
        }
        self.total = others.saturating_add(*counted);
    }

    /// How many extents the batch of each of so many layers may hold.
    pub(crate) fn extents(layers: usize) -> usize {
        EXTENTS.checked_div(layers).unwrap_or(EXTENTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, ImageFile, Result};
    use pretty_assertions::assert_eq;

    struct Holder(u64);

    impl ExtentSource for Holder {
        fn virtual_size(&self) -> u64 {
            0
        }

        fn files(&self) -> &[ImageFile] {
            &[]
        }

        fn buffered(&self) -> u64 {
            self.0
        }

        fn release(&mut self) {
            self.0 = 0;
        }

        fn extents(&mut self, _: &mut Batch) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_goes_beyond_the_limit_gives_back() {
        let mut buffers = Buffers::default();
        let mut counted = [0; 4];
        let mut sources = [3 << 20, 4 << 20, 2 << 20, 1 << 20].map(Holder);
        for (source, counted) in sources.iter_mut().zip(&mut counted) {
            buffers.settle(source, counted, 0);
        }
        assert_eq!(sources.each_ref().map(|s| s.0), [3 << 20, 4 << 20, 0, 1 << 20]);
        // One that needs less leaves room for another.
        let [first, _, third, _] = &mut sources;
        (first.0, third.0) = (1 << 20, 2 << 20);
        buffers.settle(first, &mut counted[0], 0);
        buffers.settle(third, &mut counted[2], 0);
        assert_eq!(third.0, 2 << 20);
        assert_eq!(buffers.total, 8 << 20);
        // What else is held leaves less room, 4 MiB here.
        buffers.settle(first, &mut counted[0], 16 << 20);
        assert_eq!((first.0, buffers.total), (0, 7 << 20));
        first.0 = 1 << 20;
        buffers.settle(first, &mut counted[0], 12 << 20);
        assert_eq!((first.0, buffers.total), (1 << 20, 8 << 20));
    }
}
