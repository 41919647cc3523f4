//! The structure of a property list: which of its elements hold block tables.

use instar_core::Result;

use crate::error::Error;
use crate::xml::Token;

/// Bytes of the names of open elements together (instar's own limit), and so the depth of a list.
/// Those around a block table take 26.
const MAX_NAMES: usize = 4096;

/// The longest of the keys that matter.
const MAX_KEY: usize = b"resource-fork".len();

/// What an element is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The root element, `plist`.
    List,
    /// The dictionary in it.
    Root,
    /// The dictionary under its key `resource-fork`.
    Fork,
    /// The array under the key `blkx` of that, or of the root.
    Tables,
    /// A dictionary in it.
    Table,
    /// The data under its key `Data`.
    Data,
    /// A key in one of these dictionaries.
    Key,
    /// Anything else.
    Other,
}

/// An element whose end tag has not come yet.
#[derive(Debug, Clone, Copy)]
struct Open {
    role: Role,
    /// Where its name starts in the names of all.
    name: usize,
}

/// What the reader of a list does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Reads on.
    On,
    /// Reads the content of an element that should be a block table.
    Table,
    /// Nothing: the root element has ended.
    Over,
}

/// Follows a property list from tag to tag.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    open: Vec<Open>,
    /// The names of the open elements, one after the other.
    names: Vec<u8>,
    /// The text of the last key in the innermost dictionary that matters, up to a byte more than
    /// [`MAX_KEY`].
    key: Vec<u8>,
}

impl Outline {
    /// Whether an element has not ended.
    pub(crate) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Takes the next token, which is at file offset `at`.
    pub(crate) fn take(&mut self, token: Token<'_>, at: u64) -> Result<Step> {
        match token {
            Token::Start(name) => {
                let role = self.role_of(name);
                let start = self.names.len();
                self.names.extend_from_slice(name);
                if self.names.len() > MAX_NAMES {
                    return Err(Error::Depth { allowed: MAX_NAMES, at }.into());
                }
                self.open.push(Open { role, name: start });
                return Ok(if role == Role::Data { Step::Table } else { Step::On });
            }
            Token::Empty(name) => {
                self.role_of(name);
                return Ok(if self.is_open() { Step::On } else { Step::Over });
            }
            Token::End(name) => {
                let open = self.open.pop();
                let Some(open) = open.filter(|open| self.names.get(open.name..) == Some(name))
                else {
                    return Err(Error::EndTag { at }.into());
                };
                self.names.truncate(open.name);
                if open.role != Role::Key {
                    self.key.clear();
                }
                return Ok(if self.is_open() { Step::On } else { Step::Over });
            }
            Token::Text(bytes) => self.add_to_key(bytes),
            Token::Character(character) => {
                self.add_to_key(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            // Not part of any key that matters.
            Token::Entity => self.add_to_key(b"&"),
            Token::Other => {}
        }
        Ok(Step::On)
    }

    /// The role of an element with this `name` that starts here.
    fn role_of(&mut self, name: &[u8]) -> Role {
        let within = self.open.last().map(|open| open.role);
        if let Some(Role::Root | Role::Fork | Role::Table) = within {
            let role = match (within, name, self.key.as_slice()) {
                (_, b"key", _) => Role::Key,
                (Some(Role::Root), b"dict", b"resource-fork") => Role::Fork,
                (Some(Role::Root | Role::Fork), b"array", b"blkx") => Role::Tables,
                (Some(Role::Table), b"data", b"Data") => Role::Data,
                _ => Role::Other,
            };
            // A key belongs to the element after it only.
            self.key.clear();
            return role;
        }
        match (within, name) {
            (None, b"plist") => Role::List,
            (Some(Role::List), b"dict") => Role::Root,
            (Some(Role::Tables), b"dict") => Role::Table,
            _ => Role::Other,
        }
    }

    fn add_to_key(&mut self, bytes: &[u8]) {
        if self.open.last().is_some_and(|open| open.role == Role::Key) {
            let free = (MAX_KEY + 1).saturating_sub(self.key.len());
            self.key.extend_from_slice(bytes.get(..free).unwrap_or(bytes));
        }
    }
}
