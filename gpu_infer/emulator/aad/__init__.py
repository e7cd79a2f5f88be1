"""The few answers of Azure Active Directory that a service principal needs to sign in."""
