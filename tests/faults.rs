//! Servers that fail: what passes by itself, what ends a cycle, and that nothing is lost or made up by either.

mod answers;
mod consul;
mod limits;
mod restarts;
mod stop;

use crate::common::proxy::{Proxy, Rule};
use crate::ends::Ends;

/// A kind of request in a cycle, at which a fault can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    OriginSurvey,
    OriginListing,
    OriginMetadata,
    OriginData,
    DestinationListing,
    DestinationWrite,
}

impl At {
    pub const ALL: [At; 6] = [
        At::OriginSurvey,
        At::OriginListing,
        At::OriginMetadata,
        At::OriginData,
        At::DestinationListing,
        At::DestinationWrite,
    ];

    /// Two ends in whose cycles there are such requests.
    pub fn ends(self) -> Ends {
        match self {
            At::OriginListing | At::OriginMetadata => Ends::new().plain(),
            _ => Ends::new(),
        }
    }

    /// The proxy that such requests pass, and what they begin with.
    pub fn place(self, ends: &Ends) -> (&Proxy, String) {
        let (origin, destination) = (&ends.origin, &ends.destination);
        match self {
            At::OriginSurvey => (&ends.origin_proxy, format!("LIST /v1/{}", origin.survey_path(""))),
            At::OriginListing => (&ends.origin_proxy, format!("LIST /v1/{}", origin.metadata_path(""))),
            At::OriginMetadata => (&ends.origin_proxy, format!("GET /v1/{}", origin.metadata_path(""))),
            At::OriginData => (&ends.origin_proxy, format!("GET /v1/{}", origin.data_path(""))),
            At::DestinationListing => (
                &ends.destination_proxy,
                format!("LIST /v1/{}", destination.metadata_path("")),
            ),
            At::DestinationWrite => (
                &ends.destination_proxy,
                format!("POST /v1/{}", destination.data_path("")),
            ),
        }
    }

    /// Lets `action` befall the first `times` such requests.
    pub fn strike(self, ends: &Ends, times: usize, action: crate::common::proxy::Action) -> Rule {
        let (proxy, line) = self.place(ends);
        proxy.when_first(times, line, action)
    }

    /// The role whose cycle such requests belong to.
    pub fn role(self) -> &'static str {
        match self {
            At::OriginSurvey | At::OriginListing | At::OriginMetadata => "origin",
            _ => "destination",
        }
    }
}

/// Runs `body` for every place at once, each on a thread of its own.
pub fn at_each_place(body: impl Fn(At) + Sync) {
    at_each(&At::ALL, body);
}

/// As [`at_each_place`], for these places.
pub fn at_each(places: &[At], body: impl Fn(At) + Sync) {
    std::thread::scope(|threads| {
        for &at in places {
            let body = &body;
            threads.spawn(move || body(at));
        }
    });
}
