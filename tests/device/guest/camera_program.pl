#!/usr/bin/perl
# Stands in for rpicam-vid and for ffmpeg: a stream of the pictures in /usr/local/share/feed, normal-*.jpg or object-*.jpg
# as /run/feed-scene says, five a second, to the standard output of the one and to descriptor 3 of the other.
use strict;
use warnings;

my $out = \*STDOUT;
if ($0 =~ /ffmpeg/) {
    open $out, '>&=', 3 or die "descriptor 3: $!";
    # As the real one, it names the address in its messages.
    while (<STDIN>) { print STDERR "Impossible to open $_" if /^file/ }
}
binmode $out;
$| = 1;
my %pictures;
for my $name (qw(normal object)) {
    for my $path (glob "/usr/local/share/feed/$name-*.jpg") {
        open my $file, '<:raw', $path or die "$path: $!";
        local $/;
        push @{ $pictures{$name} }, scalar <$file>;
    }
}
for (my $n = 0; ; $n++) {
    open my $file, '<', '/run/feed-scene' or die "/run/feed-scene: $!";
    chomp(my $what = <$file> // 'normal');
    close $file;
    my $picture = $pictures{$what}[$n % @{ $pictures{$what} }];
    for (my $at = 0; $at < length $picture;) {
        my $written = syswrite $out, $picture, length($picture) - $at, $at;
        die "write: $!" unless defined $written;
        $at += $written;
    }
    select undef, undef, undef, 0.2;
}
