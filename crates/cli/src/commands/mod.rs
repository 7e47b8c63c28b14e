//! One file a command.

pub(crate) mod admit;
pub(crate) mod bench;
pub(crate) mod bucket;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod delete;
pub(crate) mod dev;
pub(crate) mod export;
pub(crate) mod get;
pub(crate) mod import;
pub(crate) mod import_lines;
pub(crate) mod init;
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod put;
pub(crate) mod ready;
pub(crate) mod repair;
pub(crate) mod server;
pub(crate) mod sim;
pub(crate) mod status;
pub(crate) mod verify;
