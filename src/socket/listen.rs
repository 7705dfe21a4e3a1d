//! Addresses to listen at, as a configuration names them.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What [`Listen::parse`] accepts.
pub const EXPECTED_LISTEN: &str = "an IP address and a port like 127.0.0.1:8202 or [::1]:8202, or unix:/path";
/// The longest path that a unix socket may have.
const LONGEST_PATH: usize = 107;

/// An address to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The file of a unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// `127.0.0.1:8202`, `[::1]:8202`, `unix:/run/vsync/audit.sock`.
    ///
    /// # Errors
    /// What it must be, without a word about what it is.
    pub fn parse(text: &str) -> Result<Listen, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_file(path).map(|path| Listen::Unix(path.to_owned()));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Ok(Listen::Tcp(address)),
            _ => Err(format!("must be {EXPECTED_LISTEN}")),
        }
    }

    /// Whether nobody but this host can connect.
    pub fn is_of_this_host(&self) -> bool {
        match self {
            Listen::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Listen::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Absolute, since the other side names it too, and may run elsewhere.
fn socket_file(path: &str) -> Result<&Path, String> {
    match path {
        _ if path.chars().any(char::is_control) => Err("must not hold control characters".to_owned()),
        _ if !path.starts_with('/') || path.ends_with('/') => Err(format!("must be {EXPECTED_LISTEN}")),
        _ if path.len() > LONGEST_PATH => Err(format!(
            "must have at most {LONGEST_PATH} bytes after unix:, as the system's sockets do"
        )),
        _ => Ok(Path::new(path)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::mutated_text;

    #[test]
    fn addresses_to_listen_at() {
        let form = format!("must be {EXPECTED_LISTEN}");
        let long = format!("unix:/{}", "x".repeat(LONGEST_PATH));
        let too_long = format!("must have at most {LONGEST_PATH} bytes after unix:, as the system's sockets do");
        for (text, answer, is_of_this_host) in [
            ("127.0.0.1:8202", Ok("127.0.0.1:8202"), true),
            ("[::1]:8202", Ok("[::1]:8202"), true),
            ("[::ffff:127.0.0.1]:1", Ok("[::ffff:127.0.0.1]:1"), true),
            ("0.0.0.0:8202", Ok("0.0.0.0:8202"), false),
            ("[::]:8202", Ok("[::]:8202"), false),
            ("10.0.0.5:65535", Ok("10.0.0.5:65535"), false),
            ("unix:/run/a b.sock", Ok("unix:/run/a b.sock"), true),
            ("unix:run/a.sock", Err(&form), false),
            ("unix:", Err(&form), false),
            ("unix:/run/", Err(&form), false),
            ("unix:/a\nb", Err(&"must not hold control characters".to_owned()), false),
            (&long, Err(&too_long), false),
            ("/run/a.sock", Err(&form), false),
            ("localhost:8202", Err(&form), false),
            ("127.0.0.1", Err(&form), false),
            ("127.0.0.1:0", Err(&form), false),
            ("127.0.0.1:65536", Err(&form), false),
            (":8202", Err(&form), false),
            ("::1:8202", Err(&form), false),
            ("", Err(&form), false),
        ] {
            let listen = Listen::parse(text);
            let own = listen.as_ref().is_ok_and(Listen::is_of_this_host);
            assert_eq!(own, is_of_this_host, "{text}");
            let shown = listen.map(|listen| listen.to_string());
            assert_eq!(shown, answer.map(str::to_owned).map_err(Clone::clone), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_shown_as_it_was_meant(text in mutated_text(&[
            "127.0.0.1:8202", "[::1]:8202", "unix:/run/vsync/audit.sock",
        ])) {
            if let Ok(listen) = Listen::parse(&text) {
                prop_assert_eq!(Listen::parse(&listen.to_string()), Ok(listen));
            }
        }
    }
}
