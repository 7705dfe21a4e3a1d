//! Configuration: file, environment and flags become validated [`Settings`].

mod settings;

pub use settings::{DestinationSettings, LogFormat, LogSettings, MaxDeletes, OriginSettings, Settings, StoreSettings};
