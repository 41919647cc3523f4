//! Tables that are named more often than there can be tables.

use crate::{Notices, Result};

/// Counts the tables that an upper table names, to notice that some are named many times.
///
/// That is legal in a sense: what they say is where the data is. But no writer makes such an image,
/// and one of a few KiB can have a map of many GiB. A file has no room for more different tables
/// than their size goes into its length, so whoever counts more has seen one twice. Costs two
/// numbers, whatever the number of tables.
#[derive(Debug)]
pub struct References {
    what: &'static str,
    /// How many tables the file has room for.
    room: u64,
    count: u64,
    /// The first index that was not counted yet.
    next: u64,
}

impl References {
    /// Counts tables called `what` (in the plural), of `table` bytes each, in a file of `file`
    /// bytes.
    pub fn new(what: &'static str, file: u64, table: u64) -> Self {
        Self { what, room: file.div_ceil(table.max(1)), count: 0, next: 0 }
    }

    /// Counts the table that entry `index` of the upper table names, unless that entry or a later
    /// one was counted before; true if it was counted.
    ///
    /// # Errors
    /// [`ErrorKind::Strict`](crate::ErrorKind::Strict) if there are too many and warnings are
    /// errors.
    #[inline]
    pub fn count(&mut self, index: u64, notices: &Notices) -> Result<bool> {
        if index < self.next {
            return Ok(false);
        }
        self.next = index.saturating_add(1);
        self.count = self.count.saturating_add(1);
        if self.count == self.room.saturating_add(1) {
            let Self { what, room, .. } = self;
            notices.warn(format!(
                "more {what} are named than the file has room for, {room}: some of them many times"
            ))?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn one_table_too_many_is_noticed_and_questions_twice_are_not() {
        let got = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&got);
        let notices = Notices::new(false, move |n| sink.lock().unwrap().push(n.text.clone()));
        let mut references = References::new("L2 tables", 5000, 512);
        for index in [0, 1, 1, 0, 5, 6, 7, 8, 9, 10, 11, 4, 12] {
            references.count(index, &notices).unwrap();
        }
        assert_eq!(*got.lock().unwrap(), [] as [String; 0], "10 fit");
        assert!(references.count(20, &notices).unwrap());
        assert!(!references.count(20, &notices).unwrap());
        references.count(21, &notices).unwrap();
        assert_eq!(
            *got.lock().unwrap(),
            ["more L2 tables are named than the file has room for, 10: some of them many times"]
        );
        let strict = Notices::new(true, |_| {});
        let mut references = References::new("L2 tables", 512, 512);
        assert!(references.count(0, &strict).is_ok());
        assert!(references.count(1, &strict).is_err());
    }
}
