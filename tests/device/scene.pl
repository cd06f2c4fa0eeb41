#!/usr/bin/perl
# Draws the frames that are fed to the board's camera: scene.pl DIR WIDTH HEIGHT writes normal-N.yuyv and object-N.yuyv,
# whole YUYV frames of a fixed scene under changing light and noise, the latter with an object in it.
use strict;
use warnings;

my ($dir, $width, $height) = @ARGV;
srand(20260501);

sub draw {
    my ($object) = @_;
    my $light = 0.92 + rand(0.16);
    my $shift = int(rand(3));
    my $frame = '';
    for my $y (0 .. $height - 1) {
        my @luma;
        for my $x (0 .. $width - 1) {
            my $u = $x + $shift;
            my $value = 90 + 40 * $x / $width + (int($y / 24) % 2 ? 12 : 0);
            $value += 45 if ($u / $width - 0.25)**2 + ($y / $height - 0.6)**2 < 0.02;
            $value -= 40 if $u % 64 < 4;
            if ($object) {
                my ($dx, $dy) = ($x / $width - 0.62, $y / $height - 0.45);
                my $r = $dx * $dx + $dy * $dy;
                $value = (int($x / 7) + int($y / 7)) % 2 ? 235 : 20 if $r < 0.055;
            }
            $value = $value * $light + rand(10) - 5;
            push @luma, $value < 16 ? 16 : $value > 235 ? 235 : int($value);
        }
        my ($cb, $cr) = (120 + int(10 * $y / $height), 132);
        $frame .= pack('C4', $luma[2 * $_], $cb, $luma[2 * $_ + 1], $cr) for 0 .. $width / 2 - 1;
    }
    return $frame;
}

sub save {
    my ($name, $data) = @_;
    open my $file, '>:raw', "$dir/$name" or die "$dir/$name: $!";
    print $file $data or die $!;
    close $file or die $!;
}

save("normal-$_.yuyv", draw(0)) for 0 .. 39;
save("object-$_.yuyv", draw(1)) for 0 .. 9;
