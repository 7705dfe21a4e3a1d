//! sync_info
