//! Holes of a file as extents.

use std::sync::Arc;

use instar_core::{
    Batch, Error, ExtentSource, Flow, Image, ImageFile, Place, Result, RunKind, SECTOR, Status,
    Storage, run_from,
};

pub(crate) struct RawSource {
    storage: Arc<dyn Storage>,
    files: [ImageFile; 1],
}

impl RawSource {
    pub(crate) fn new(image: &Image<'_>) -> Self {
        Self { storage: Arc::clone(&image.storage), files: [image.file()] }
    }
}

impl ExtentSource for RawSource {
    fn virtual_size(&self) -> u64 {
        self.storage.len().next_multiple_of(SECTOR)
    }

    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        while out.cursor() < out.end() {
            let at = out.cursor();
            let run = run_from(self.storage.as_ref(), at)
                .map_err(|error| Error::io("cannot look for holes in the file", error).at(at))?;
            let status = match run.kind {
                RunKind::Data => Status::Data(Place::at(at)),
                RunKind::Hole => Status::ZeroAt(Place::at(at)),
            };
            if out.push(run.end.saturating_sub(at), status) == Flow::Stop {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use instar_core::testkit::{check_format, data, extents, open};
    use instar_core::{MemoryStorage, Place, Status};
    use pretty_assertions::assert_eq;

    use crate::Raw;
    use crate::samples::{all, holes_around_data};

    #[test]
    fn data_and_holes_have_their_own_offset_and_the_last_sector_is_filled_up() {
        let mut source = open(&Raw, holes_around_data()).unwrap();
        let hole = |at| Status::ZeroAt(Place::at(at));
        assert_eq!(
            extents(source.as_mut()).unwrap(),
            [
                (4096, hole(0)),
                (4096, data(4096)),
                (90_000 - 8192, hole(8192)),
                (10_000, data(90_000)),
                (352, hole(100_000)),
            ]
        );
    }

    #[test]
    fn an_empty_file_is_an_empty_disk() {
        assert_eq!(open(&Raw, MemoryStorage::new(0)).unwrap().virtual_size(), 0);
    }

    #[test]
    fn laws() {
        assert_eq!(check_format(&Raw, &all()).samples, 4);
    }
}
