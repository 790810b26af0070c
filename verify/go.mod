module github.com/transfer-referrers/transfer-referrers/verify

go 1.26.8

replace github.com/transfer-referrers/transfer-referrers => ../

require github.com/transfer-referrers/transfer-referrers v0.0.0-00010101000000-000000000000
