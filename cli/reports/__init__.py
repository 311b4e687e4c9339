"""What `eventsink report` says, and how it is written."""
