//! HTTP to requests and answers to HTTP.
