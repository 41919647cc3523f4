//! Reading back what `map` printed.

use serde_json::Value;

/// One entry of the JSON output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JsonRow {
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) depth: u64,
    /// Always true where the version prints no such key.
    pub(crate) present: bool,
    pub(crate) zero: bool,
    pub(crate) data: bool,
    pub(crate) offset: Option<u64>,
}

impl JsonRow {
    pub(crate) fn end(&self) -> u64 {
        self.start + self.length
    }
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HumanRow {
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) offset: u64,
    pub(crate) file: String,
}

/// Parses complete JSON output.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn json_rows(stdout: &str) -> Result<Vec<JsonRow>, String> {
    let value: Value = serde_json::from_str(stdout).map_err(|e| format!("no JSON: {e}"))?;
    let list = value.as_array().ok_or("no array")?;
    list.iter().map(json_row).collect()
}

fn json_row(value: &Value) -> Result<JsonRow, String> {
    let missing = |key: &str| format!("no {key} in {value}");
    let number = |key: &str| value[key].as_u64().ok_or_else(|| missing(key));
    let flag = |key: &str| value[key].as_bool().ok_or_else(|| missing(key));
    Ok(JsonRow {
        start: number("start")?,
        length: number("length")?,
        depth: number("depth")?,
        present: value.get("present").is_none_or(|p| p == true),
        zero: flag("zero")?,
        data: flag("data")?,
        offset: value.get("offset").and_then(Value::as_u64),
    })
}

/// Checks that the rows tile the window from `start`, at most `length` bytes, and returns where
/// they end.
///
/// # Errors
/// Where they do not.
pub(crate) fn check_tiling(
    rows: &[JsonRow],
    start: u64,
    length: Option<u64>,
) -> Result<u64, String> {
    let mut at = start;
    for row in rows {
        if row.start != at {
            return Err(format!("expected a row at {at}: {row:?}"));
        }
        if row.length == 0 && rows.len() > 1 {
            return Err(format!("an empty row among others: {row:?}"));
        }
        at = at.checked_add(row.length).ok_or_else(|| format!("a row without an end: {row:?}"))?;
    }
    match length {
        _ if rows.is_empty() => Err("no row at all".to_owned()),
        Some(length) if at - start > length => Err(format!("more than {length} bytes")),
        _ => Ok(at),
    }
}

/// Parses the table, complete or not. The File column may hold anything but a line feed.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn human_rows(stdout: &str) -> Result<Vec<HumanRow>, String> {
    let body = stdout
        .strip_prefix("Offset          Length          Mapped to       File\n")
        .ok_or("no header")?;
    body.lines().map(|line| human_row(line).ok_or_else(|| format!("no row: {line:?}"))).collect()
}

fn human_row(line: &str) -> Option<HumanRow> {
    let mut rest = line;
    let mut number = || {
        let hex = rest.strip_prefix("0x");
        let digits = hex.unwrap_or(rest);
        let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        // A full column runs into the next: 0x100000000000000x1000.
        let end = match digits.get(end..) {
            Some(after) if after.starts_with('x') => end - 1,
            _ => end,
        };
        let value = u64::from_str_radix(digits.get(..end)?, 16).ok()?;
        let width = end + if hex.is_some() { 2 } else { 0 };
        rest = rest.get(width.max(16)..)?;
        Some(value)
    };
    Some(HumanRow { start: number()?, length: number()?, offset: number()?, file: rest.to_owned() })
}

/// The window that arguments ask for, as far as baselines use sizes: decimal numbers.
pub(crate) fn window_of(args: &[String]) -> (u64, Option<u64>) {
    let after = |option: &str| {
        let at = args.iter().position(|arg| arg == option)?;
        let text = args.get(at + 1)?;
        Some(text.parse().unwrap_or_else(|_| panic!("{text} is no decimal size")))
    };
    (after("-s").unwrap_or(0), after("-l"))
}
