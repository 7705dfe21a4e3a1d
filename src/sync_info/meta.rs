//! What stands beside the index: whose info it is, and under which rules it came to be.
//!
//! Readers decide by it whether an absence is a deletion or a change of rules, and whether a server is the one it was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Hash, SecretType};
use crate::error::{Error, Kind, Result};
use crate::transform::Rule;

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// Whose sync info it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What the origin holds.
    Origin,
    /// What has been copied to a destination.
    Destination,
}

impl Role {
    /// The role's name, which is also the part of its keys after the sync path.
    pub fn name(self) -> &'static str {
        match self {
            Role::Origin => "origin",
            Role::Destination => "destination",
        }
    }
}

/// Which versions of a secret a destination is to hold, where its engine keeps several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Versions {
    /// The latest one; older ones are what was the latest then.
    #[default]
    Latest,
    /// Those that the origin has, under their numbers.
    All,
}

impl Versions {
    fn is_latest(&self) -> bool {
        *self == Versions::Latest
    }
}

/// The value of the key `meta`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// [`FORMAT`].
    pub format: u32,
    /// Whose info it is.
    pub role: Role,
    /// The configured name of the origin or the destination.
    pub name: String,
    /// Which cluster the Vault belongs to.
    pub cluster_id: String,
    /// The Vault's namespace; empty for the root namespace.
    pub namespace: String,
    /// The data paths with the mounts that they lead to.
    pub data_paths: Vec<MetaDataPath>,
    /// The include rules; of a destination its own, not the origin's.
    #[serde(default)]
    pub include: Vec<String>,
    /// The exclude rules.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// The rules for names of policies; `None`: of an origin that none are synced, of a destination that it takes the origin's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<Vec<String>>,
    /// The rules for names of AppRole roles; as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approles: Option<Vec<String>>,
    /// Of an origin that has fingerprints under a key: by what another key is noticed. It reveals neither the key nor a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint_check: Option<Hash>,
    /// A destination's transformers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transforms: Vec<Rule>,
    /// Which versions a destination holds.
    #[serde(default, skip_serializing_if = "Versions::is_latest")]
    pub versions: Versions,
    /// Paths in the info, by type.
    #[serde(default)]
    pub counts: BTreeMap<SecretType, u64>,
    /// When the info was saved, by the clock of the machine that saved it.
    pub saved_at: String,
    /// The hash of the stored index that it was saved with. Beside another index, from a save that was cut off or
    /// made while others went on adding, the counts may be wrong.
    #[serde(default)]
    pub index: String,
}

/// A data path and the mount that it led to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaDataPath {
    /// As configured.
    pub path: String,
    /// The mount's path.
    pub mount: String,
    /// The mount's UUID; another one means another mount at the same path.
    pub mount_uuid: String,
    /// The type of its secrets.
    #[serde(rename = "type")]
    pub secret_type: SecretType,
}

impl Meta {
    /// Reads a stored value.
    ///
    /// # Errors
    /// [`Kind::Corrupt`]; it never quotes the value.
    pub fn from_bytes(bytes: &[u8]) -> Result<Meta> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let unreadable = |_| Error::new(Kind::Corrupt, "it is not the JSON that vsync writes");
        let format = serde_json::from_slice::<Format>(bytes).map_err(unreadable)?.format;
        if format > FORMAT {
            let why =
                format!("it has format {format}, this vsync knows up to {FORMAT}; use the newer vsync that wrote it");
            return Err(Error::new(Kind::Corrupt, why).fatal());
        }
        serde_json::from_slice(bytes).map_err(unreadable)
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Whether both say the same of servers and rules; counts and times apart.
    pub fn same_rules(&self, other: &Meta) -> bool {
        let bare = |meta: &Meta| {
            let mut bare = meta.clone();
            bare.counts.clear();
            bare.saved_at.clear();
            bare.index.clear();
            bare
        };
        bare(self) == bare(other)
    }

    /// Paths in the info, of all types.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::{flaw, mutated};

    const STORED: &[&str] = &[concat!(
        r#"{"format":1,"role":"destination","name":"eu","clusterId":"c1","namespace":"","#,
        r#""dataPaths":[{"path":"SECRET/","mount":"secret/","mountUuid":"u1","type":"kvV2"}],"include":["a"],"#,
        r#""transforms":[{"name":"n","from":"a","to":"b"}],"counts":{"kvV2":3},"savedAt":"t","index":"00ff"}"#
    )];

    proptest! {
        #[test]
        fn a_damaged_meta_is_refused_without_quoting_it_or_read_as_it_is(bytes in mutated(STORED)) {
            match Meta::from_bytes(&bytes) {
                Ok(meta) => prop_assert_eq!(Meta::from_bytes(&meta.to_bytes()).unwrap(), meta),
                Err(error) => prop_assert_eq!(flaw(&error, "SECRET"), None, "{}", error),
            }
        }
    }

    fn meta() -> Meta {
        Meta {
            format: FORMAT,
            role: Role::Origin,
            name: "origin".into(),
            cluster_id: "c1".into(),
            namespace: String::new(),
            data_paths: vec![MetaDataPath {
                path: "secret/".into(),
                mount: "secret/".into(),
                mount_uuid: "u1".into(),
                secret_type: SecretType::KvV2,
            }],
            include: Vec::new(),
            exclude: vec!["^secret/data/tmp/".into()],
            policies: None,
            approles: None,
            fingerprint_check: None,
            transforms: Vec::new(),
            versions: Versions::Latest,
            counts: BTreeMap::from([(SecretType::KvV2, 3)]),
            saved_at: "2026-11-21T10:00:00.000Z".into(),
            index: "00ff".into(),
        }
    }

    #[test]
    fn a_stored_meta_is_read_back() {
        let meta = meta();
        assert_eq!(Meta::from_bytes(&meta.to_bytes()).unwrap(), meta);
        assert_eq!(
            String::from_utf8(meta.to_bytes()).unwrap(),
            concat!(
                r#"{"format":1,"role":"origin","name":"origin","clusterId":"c1","namespace":"","#,
                r#""dataPaths":[{"path":"secret/","mount":"secret/","mountUuid":"u1","type":"kvV2"}],"#,
                r#""include":[],"exclude":["^secret/data/tmp/"],"counts":{"kvV2":3},"savedAt":"2026-11-21T10:00:00.000Z","index":"00ff"}"#
            )
        );
    }

    #[test]
    fn counts_and_times_are_not_rules() {
        let (old, mut new) = (meta(), meta());
        new.counts.clear();
        new.saved_at.clear();
        new.index.clear();
        assert!(old.same_rules(&new));
        new.data_paths[0].mount_uuid = "u2".into();
        assert!(!old.same_rules(&new));
    }

    #[test]
    fn what_a_newer_version_or_nobody_wrote_is_refused() {
        let newer = Meta::from_bytes(br#"{"format":2,"anything":{}}"#).unwrap_err();
        assert!(newer.to_string().contains("format 2"), "{newer}");
        let error = Meta::from_bytes(br#"{"format":1,"name":"hvs.SECRET"}"#).unwrap_err();
        assert!(!error.to_string().contains("SECRET"), "{error}");
    }
}
