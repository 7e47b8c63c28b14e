//! Asynchronous client library that finds the layout and routes to a replica.
