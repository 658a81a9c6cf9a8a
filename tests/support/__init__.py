"""What tests share: daemons, S3 servers and file systems of their own, faults for them, an oracle for the store."""
