//! Two network layers on one wire, and what strangers put on it.

mod captured;
mod flow;
mod flows;
mod hostile;
mod messages;
mod neighbors;
mod world;
