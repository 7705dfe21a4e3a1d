//! One error type for the whole program.
//!
//! An error says what went wrong (`message` and its chain of causes), what kind of thing it is (`Kind`,
//! which callers match on), and how far it reaches (`Level`). Lower layers return [`Level::Warn`]; whoever
//! knows the consequence raises the level, and nothing ever lowers it. Messages are lower case, one line,
//! and never hold a secret: what a server or a parser said is classified, not quoted.

use std::fmt;

/// A result with vsync's own error.
pub type Result<T> = std::result::Result<T, Error>;

/// How far an error reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Counted and reported; the cycle goes on.
    Warn,
    /// This cycle ends and saves nothing; the next tick tries again.
    Cycle,
    /// This cycle ends, no further one starts, and a human is told.
    Fatal,
}

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line or the configuration is wrong; nothing was contacted.
    Config,
    /// The server knows the token, but its policies do not allow this request.
    Denied,
    /// The token itself is refused (wrong, expired, revoked) and could not be had again.
    BadToken,
    /// There is nothing at that path.
    NotFound,
    /// No answer: connection refused, reset, cut, or a gateway that says so.
    Unreachable,
    /// The server is sealed, not initialised, or locked.
    Sealed,
    /// The server asks to slow down, or is a standby that lags behind.
    Limited,
    /// A time limit passed.
    Timeout,
    /// The server refused the request itself: too large, a bad name, a rule of its own.
    Refused,
    /// Somebody else wrote in between: a check-and-set did not match.
    Conflict,
    /// An answer that a server of this kind does not give: HTML, broken JSON, a redirect.
    Protocol,
    /// Sync info, or something sealed, that can't be used.
    Corrupt,
    /// A local file or folder can't be read or written.
    File,
    /// The work was stopped from outside.
    Stopped,
    /// A defect of vsync: a worker panicked.
    Panic,
}

/// What went wrong, where, and how far it reaches.
#[derive(Debug)]
pub struct Error {
    level: Level,
    kind: Kind,
    message: String,
    cause: Option<Box<Error>>,
}

impl Error {
    /// An error of level [`Level::Warn`] without a cause.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error {
            level: Level::Warn,
            kind,
            message: message.into(),
            cause: None,
        }
    }

    /// What kind of thing went wrong; context does not change it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How far the error reaches.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Puts `message` in front: the name of what was being done, where it is known.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Error {
        Error {
            level: self.level,
            kind: self.kind,
            message: message.into(),
            cause: Some(Box::new(self)),
        }
    }

    /// The same error with its level raised to at least `level`.
    #[must_use]
    pub fn raised(mut self, level: Level) -> Error {
        self.level = self.level.max(level);
        self
    }

    /// The same error as [`Level::Fatal`].
    #[must_use]
    pub fn fatal(self) -> Error {
        self.raised(Level::Fatal)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause = &self.cause;
        while let Some(error) = cause {
            write!(f, ": {}", error.message)?;
            cause = &error.cause;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Adds context to a result's error, where the name is known.
pub trait Context<T> {
    /// Puts what `message` returns in front of the error, if there is one.
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|error| error.context(message()))
    }
}

/// Shorthand for `Err(Error::new(kind, message))`.
pub fn fail<T>(kind: Kind, message: impl Into<String>) -> Result<T> {
    Err(Error::new(kind, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_shown_on_one_line_and_the_level_only_rises() {
        let error = Error::new(Kind::Denied, "the token lacks the capability read")
            .fatal()
            .context("read secret/data/a")
            .raised(Level::Warn);
        assert_eq!(
            error.to_string(),
            "read secret/data/a: the token lacks the capability read"
        );
        assert_eq!((error.kind(), error.level()), (Kind::Denied, Level::Fatal));
    }
}
