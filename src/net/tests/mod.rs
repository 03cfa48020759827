//! Two network layers on one wire, and what strangers put on it.

mod captured;
mod flow;
mod flows;
mod fuzz;
mod group;
mod hostile;
mod links;
mod messages;
mod neighbors;
mod play;
mod routers;
mod strangers;
mod world;
