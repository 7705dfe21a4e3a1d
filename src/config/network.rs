//! Addresses whose connections vsync takes where it listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What [`Network::parse`] accepts.
pub const EXPECTED_NETWORK: &str = "an IP address, or a network like 10.0.0.0/8 whose address ends with its prefix";

/// An IP address, or all those that begin as it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// How many bits of the address count.
    prefix: u8,
}

impl Network {
    /// All addresses of this host that no other can use.
    pub const LOOPBACK: [Network; 2] = [
        Network {
            address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)),
            prefix: 8,
        },
        Network {
            address: IpAddr::V6(Ipv6Addr::LOCALHOST),
            prefix: 128,
        },
    ];

    /// `10.0.0.5`, `10.0.0.0/8`, `fd00::/8`; an address that has more bits than its prefix is a slip.
    pub fn parse(text: &str) -> Option<Network> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let length = if address.is_ipv4() { 32 } else { 128 };
        let Some(digits) = prefix else {
            // A peer that is reached by IPv4 is compared as one, however the system spells it.
            let address = address.to_canonical();
            let prefix = if address.is_ipv4() { 32 } else { 128 };
            return Some(Network { address, prefix });
        };
        let prefix: u8 = digits.parse().ok()?;
        let network = Network { address, prefix };
        let is_plain = prefix <= length && prefix.to_string() == digits;
        (is_plain && bits(address) == bits(address) & network.mask()).then_some(network)
    }

    /// Whether `peer` is one of its addresses.
    pub fn holds(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        peer.is_ipv4() == self.address.is_ipv4() && (bits(peer) ^ bits(self.address)) & self.mask() == 0
    }

    fn mask(&self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0)
    }
}

/// The address's bits, the first one on top.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::mutated_text;

    #[test]
    fn networks() {
        for (text, inside, outside) in [
            (
                "10.0.0.5",
                &["10.0.0.5", "::ffff:10.0.0.5"][..],
                &["10.0.0.4", "::1"][..],
            ),
            ("::ffff:10.0.0.5", &["10.0.0.5"], &["10.0.0.6"]),
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.255.255"],
                &["11.0.0.0", "9.255.255.255", "a00::"],
            ),
            ("10.0.0.4/31", &["10.0.0.4", "10.0.0.5"], &["10.0.0.6"]),
            ("10.0.0.4/32", &["10.0.0.4"], &["10.0.0.5"]),
            ("0.0.0.0/0", &["1.2.3.4", "::ffff:1.2.3.4"], &["::1"]),
            ("::/0", &["::1", "fd00::1"], &["1.2.3.4"]),
            ("fd00::/8", &["fd12::1"], &["fe00::1", "253.0.0.1"]),
            ("::1", &["::1"], &["::2", "127.0.0.1"]),
            ("::1/128", &["::1"], &["::"]),
        ] {
            let network = Network::parse(text).unwrap_or_else(|| panic!("{text}"));
            let holds = |peer: &&str| network.holds(peer.parse().unwrap());
            assert!(inside.iter().all(holds), "{text}");
            assert!(!outside.iter().any(holds), "{text}");
        }
        for text in [
            "",
            "10.0.0",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "::/129",
            "host",
            "fd00::1/8",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
        let own = |peer: &str| {
            Network::LOOPBACK
                .iter()
                .any(|network| network.holds(peer.parse().unwrap()))
        };
        assert!(own("127.0.0.1") && own("127.1.2.3") && own("::1") && own("::ffff:127.0.0.1"));
        assert!(!own("128.0.0.1") && !own("::2") && !own("0.0.0.0"));
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_shown_as_it_was_meant(text in mutated_text(&["10.0.0.0/8", "fd00::/8"])) {
            if let Some(network) = Network::parse(&text) {
                prop_assert!(network.holds(network.address));
            }
        }
    }
}
