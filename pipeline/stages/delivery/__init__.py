"""What people read and what ships: report and bundle."""
