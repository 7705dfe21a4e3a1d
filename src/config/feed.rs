//! The change feed's part of the configuration: who may connect where.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::build::{Builder, text};
use super::keys::Place;
use super::kind::Typed;
use super::network::Network;
use super::settings::FeedSettings;
use crate::socket::Listen;

/// The servers that a place may name, which listen too.
const SERVERS: [&str; 2] = ["vault.address", "consul.address"];

impl Builder<'_> {
    /// Where the origin's Vault tells of changes.
    pub(super) fn feed(&mut self) -> Option<FeedSettings> {
        let place = Place::Origin;
        let Some(listen) = self.listen() else {
            for key in ["auditAllow", "auditSocketMode"] {
                if self.is_given(place, key) {
                    let (label, needed) = (self.label(place, key), place.dotted("auditListen"));
                    self.mistake(format!("{label}: means nothing without {needed}"));
                }
            }
            return None;
        };
        let mode = self.socket_mode(&listen);
        let allow = self.allowed(&listen)?;
        Some(FeedSettings { listen, mode, allow })
    }

    fn listen(&self) -> Option<Listen> {
        match self.values.given(Place::Origin, "auditListen") {
            Some(Typed::Listen(listen)) => Some(listen.clone()),
            _ => None,
        }
    }

    fn socket_mode(&mut self, listen: &Listen) -> u32 {
        let (place, key) = (Place::Origin, "auditSocketMode");
        if self.is_given(place, key) && matches!(listen, Listen::Tcp(_)) {
            let label = self.label(place, key);
            self.mistake(format!("{label}: is for a unix socket, which auditListen is not"));
        }
        let digits = text(self.values, place, key);
        let mode = digits.and_then(|digits| u32::from_str_radix(&digits, 8).ok());
        mode.unwrap_or(0o600)
    }

    /// What nobody else can reach needs no list, and a list there would promise more than it does.
    fn allowed(&mut self, listen: &Listen) -> Option<Vec<Network>> {
        let (place, key) = (Place::Origin, "auditAllow");
        let networks = match self.values.given(place, key) {
            Some(Typed::Networks(networks)) => Some(networks.clone()),
            _ => None,
        };
        match networks {
            None if listen.is_of_this_host() => Some(Network::LOOPBACK.to_vec()),
            Some(networks) if !listen.is_of_this_host() && !networks.is_empty() => Some(networks),
            Some(_) if listen.is_of_this_host() => {
                let label = self.label(place, key);
                self.mistake(format!(
                    "{label}: only this host can reach what auditListen names, leave it out"
                ));
                None
            }
            _ => {
                let (label, allow) = (self.label(place, "auditListen"), place.dotted(key));
                let variable = place.variable(key);
                self.mistake(format!(
                    "{label}: others than this host can reach that address, so list the addresses of the origin's \
                     servers in {allow} ({variable}), or listen at 127.0.0.1"
                ));
                None
            }
        }
    }

    /// No two things listen at one address.
    pub(super) fn check_addresses(&mut self, destinations: &[Place]) {
        let Some(Listen::Tcp(own)) = self.listen() else {
            return;
        };
        for place in [Place::Origin].iter().chain(destinations) {
            for key in SERVERS {
                if text(self.values, *place, key).is_some_and(|server| is_one_place(own, &server)) {
                    let (own, server) = (self.label(Place::Origin, "auditListen"), self.label(*place, key));
                    self.mistake(format!(
                        "{server} and {own}: one address for two things, give each its own port"
                    ));
                }
            }
        }
    }
}

/// Whether who listens at `own` takes the place of the server at that URL.
fn is_one_place(own: SocketAddr, server: &str) -> bool {
    let (scheme, authority) = server.split_once("://").unwrap_or(("http", server));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, None),
    };
    let host = match host {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        host => host.trim_matches(['[', ']']).parse().ok(),
    };
    let is_at = |host: IpAddr| host == own.ip() || (own.ip().is_unspecified() && host.is_loopback());
    let usual = if scheme == "https" { 443 } else { 80 };
    port.unwrap_or(usual) == own.port() && host.is_some_and(is_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_in_the_way_is_found() {
        for (own, server, is_one) in [
            ("127.0.0.1:8200", "http://127.0.0.1:8200", true),
            ("127.0.0.1:8200", "https://localhost:8200", true),
            ("0.0.0.0:8200", "http://127.0.0.1:8200", true),
            ("[::]:8200", "http://[::1]:8200", true),
            ("[::1]:443", "https://[::1]", true),
            ("127.0.0.1:80", "http://localhost", true),
            ("127.0.0.1:8202", "http://127.0.0.1:8200", false),
            ("0.0.0.0:8200", "http://10.0.0.1:8200", false),
            ("127.0.0.1:8200", "http://vault:8200", false),
            ("[::1]:80", "https://[::1]", false),
        ] {
            assert_eq!(is_one_place(own.parse().unwrap(), server), is_one, "{own} {server}");
        }
    }
}
