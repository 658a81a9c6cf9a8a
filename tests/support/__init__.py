"""What tests share: daemons in processes of their own, file systems of their own, an oracle for the store."""
