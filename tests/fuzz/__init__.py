"""Random mutations of what peers may send, against the running proxy (case 206): `make fuzz`."""
